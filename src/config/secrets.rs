//! Reading secrets out of the files that settings name. Called at start and again at every reload.

use std::path::Path;

use secrecy::SecretString;

use super::{AuthConfig, EtcdConfig, Problems};
use crate::files;

/// No token, password or certificate is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl AuthConfig {
    /// All tokens that are good now; none at all means that the API is open.
    pub fn tokens(&self) -> Result<Vec<SecretString>, Problems> {
        let mut problems = Problems::none();
        let mut tokens: Vec<SecretString> = self.environment_token.clone().into_iter().collect();
        for path in &self.token_files {
            match read(path).and_then(|text| tokens_in(&text)) {
                Ok(more) => tokens.extend(more.into_iter().map(SecretString::from)),
                Err(error) => problems.add(format!("token-file {}: {error}", path.display())),
            }
        }
        problems.or(tokens)
    }
}

impl EtcdConfig {
    /// The password, if there is one.
    pub fn password(&self) -> Result<Option<SecretString>, Problems> {
        let Some(path) = &self.password_file else { return Ok(None) };
        password(path).map(Some).map_err(|e| Problems(vec![format!("etcd-password-file {}: {e}", path.display())]))
    }
}

/// Reads a password out of its file.
pub fn password(path: &Path) -> Result<SecretString, String> {
    let text = read(path)?;
    // An editor's newline at the end is no part of a password.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() { Err("is empty".to_owned()) } else { Ok(SecretString::from(password)) }
}

/// Reads a small text file. The error never holds its content.
pub fn read(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| "is not UTF-8".to_owned())
}

/// Reads a small file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let found = std::fs::metadata(path).map_err(|e| format!("can't be read: {e}"))?;
    if found.is_dir() {
        return Err("is a folder".to_owned());
    }
    files::read_any(path, SECRET_BYTES_MAX).map_err(|e| format!("can't be read: {e}"))
}

/// A token as the `Authorization` header can carry it.
pub(super) fn check_token(token: &str) -> Result<(), &'static str> {
    if token.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("holds white space or a character beyond ASCII, which an Authorization header can't carry")
    }
}

fn tokens_in(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        check_token(line).map_err(|e| format!("line {} {e}", number + 1))?;
        tokens.push(line.to_owned());
    }
    // An empty file must not open the API to everybody.
    if tokens.is_empty() { Err("holds no token".to_owned()) } else { Ok(tokens) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn auth(files: &[&str]) -> (tempfile::TempDir, AuthConfig) {
        let folder = tempfile::tempdir().unwrap();
        let token_files = files
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let path = folder.path().join(format!("tokens{i}"));
                std::fs::write(&path, text).unwrap();
                path
            })
            .collect();
        (folder, AuthConfig { environment_token: Some("first".into()), token_files, jwt: None })
    }

    #[test]
    fn tokens_come_from_the_variable_and_all_lines_of_all_files() {
        let (_folder, auth) = auth(&["second\n\n  third \r\n", "fourth"]);
        let tokens = auth.tokens().unwrap();
        let tokens: Vec<&str> = tokens.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(tokens, ["first", "second", "third", "fourth"]);
    }

    #[test]
    fn a_token_file_without_a_good_token_is_refused_and_never_repeated() {
        for (text, message) in [
            ("", "holds no token"),
            (" \n\n", "holds no token"),
            ("good\nse cret\n", "line 2 holds white space"),
            ("s\u{e9}cret\n", "line 1 holds white space or a character beyond ASCII"),
        ] {
            let (_folder, auth) = auth(&[text]);
            let problem = auth.tokens().unwrap_err().to_string();
            assert!(problem.contains(message) && !problem.contains("cret"), "{text:?}: {problem}");
        }
        let endless = AuthConfig { environment_token: None, token_files: vec!["/dev/zero".into()], jwt: None };
        assert!(endless.tokens().unwrap_err().to_string().contains("longer than 65536 bytes"));
        let missing = AuthConfig { environment_token: None, token_files: vec!["/nowhere".into()], jwt: None };
        assert!(missing.tokens().unwrap_err().to_string().starts_with("token-file /nowhere: can't be read"));
    }

    #[test]
    fn a_password_keeps_its_blanks_but_not_the_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, " pass word \r\n").unwrap();
        let etcd = EtcdConfig {
            endpoints: vec![],
            prefix: String::new(),
            installation: None,
            snapshot_folder: "snapshot".into(),
            user: None,
            password_file: Some(path.clone()),
            ca: None,
            cert: None,
            key: None,
            allow_revision_bump: false,
        };
        assert_eq!(etcd.password().unwrap().unwrap().expose_secret(), " pass word ");
        std::fs::write(&path, "\n").unwrap();
        assert!(etcd.password().unwrap_err().to_string().ends_with("is empty"));
    }
}
