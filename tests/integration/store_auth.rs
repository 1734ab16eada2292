//! Logins: refused, expired, forgotten, changed, and short of permission.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use pointsman::store::{SharedStore, Store, StoreError, Txn};

use crate::store_contract::{commit, put};
use crate::store_follower::Mirror;
use crate::support::etcd::{Etcd, Wanted};
use crate::support::wait::eventually;

const PASSWORD: &str = "not a secret";
const SOON: Duration = Duration::from_secs(20);

/// An etcd with logins, whose tokens live for a second if nobody uses them.
async fn etcd_with_logins() -> Etcd {
    // A cheap password hash: what is tested is not the speed of bcrypt on this machine.
    let etcd =
        Etcd::start_as(Wanted { arguments: &["--auth-token-ttl=1", "--bcrypt-cost=4"], ..Wanted::default() }).await;
    etcd.switch_logins_on("us", PASSWORD, "ours/").await;
    etcd
}

fn settings(etcd: &Etcd, password: &str) -> (EtcdSettings, PathBuf) {
    let file = etcd.folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).expect("a file");
    (EtcdSettings { user: Some("us".to_owned()), password_file: Some(file.clone()), ..etcd.settings() }, file)
}

fn txn(key: &str) -> Txn {
    Txn { guards: Vec::new(), ops: vec![put(key, "v")] }
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Refused(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_advice() {
    let etcd = etcd_with_logins().await;
    let (wrong, _) = settings(&etcd, "wrong");
    let store = EtcdStore::connect(wrong).await.expect("a password is only tried, not needed, to begin");
    for text in [refusal(store.get("ours/1").await), refusal(store.commit(txn("ours/1")).await)] {
        assert!(text.contains("--etcd-password-file") && !text.contains("wrong"), "{text}");
    }
    assert!(refusal(store.watch("ours/", 1).await.map(drop)).contains("--etcd-password-file"));
    let nobody = EtcdStore::connect(etcd.settings()).await.unwrap();
    assert!(refusal(nobody.get("ours/1").await).contains("--etcd-user"));
}

#[tokio::test]
async fn a_login_where_none_is_wanted_is_refused_with_advice() {
    let etcd = Etcd::start().await;
    let store = EtcdStore::connect(settings(&etcd, PASSWORD).0).await.unwrap();
    assert!(refusal(store.get("ours/1").await).contains("leave out --etcd-user"));
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_refused() {
    let etcd = etcd_with_logins().await;
    let store = EtcdStore::connect(settings(&etcd, PASSWORD).0).await.unwrap();
    assert_eq!(store.limits().ops_max, 128);
    store.commit(txn("ours/1")).await.unwrap();
    assert_eq!(store.list("ours/").await.unwrap().entries.len(), 1);
    let forbidden = [
        refusal(store.get("theirs/1").await),
        refusal(store.list("theirs/").await),
        refusal(store.commit(txn("theirs/1")).await),
        refusal(store.watch("theirs/", 1).await.map(drop)),
    ];
    for text in forbidden {
        assert!(text.contains("permission"), "{text}");
    }
    store.commit(txn("ours/2")).await.expect("a refusal breaks nothing");
}

#[tokio::test]
async fn an_expired_login_heals_by_itself() {
    let etcd = etcd_with_logins().await;
    let store: SharedStore = Arc::new(EtcdStore::connect(settings(&etcd, PASSWORD).0).await.unwrap());
    let at = commit(&store, vec![put("ours/1", "1")]).await;
    for n in 0..3 {
        // Somebody else's token, got together with ours, shows when ours must have expired too.
        let probe = logged_in(&etcd).await;
        store.get("ours/1").await.unwrap();
        eventually("a token to expire", SOON, async || {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            match probe.kv_client().get("ours/1", None).await {
                Err(error) if error.to_string().contains("invalid auth token") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        match n {
            0 => drop(store.get("ours/1").await.unwrap()),
            1 => drop(commit(&store, vec![put("ours/1", "2")]).await),
            _ => drop(store.watch("ours/", at).await.expect("a watch")),
        }
    }
}

/// A client that does not renew its token.
async fn logged_in(etcd: &Etcd) -> etcd_client::Client {
    let options = etcd_client::ConnectOptions::new().with_user("us", PASSWORD);
    etcd_client::Client::connect([&etcd.members[0].url], Some(options)).await.expect("a login")
}

/// etcd keeps simple tokens in memory only.
#[tokio::test]
async fn a_restarted_etcd_has_forgotten_our_login_and_nobody_notices() {
    let mut etcd = etcd_with_logins().await;
    let store: SharedStore = Arc::new(EtcdStore::connect(settings(&etcd, PASSWORD).0).await.unwrap());
    commit(&store, vec![put("ours/1", "1")]).await;
    let mut mirror = Mirror::of(store.clone(), "ours/");
    mirror.until("the listing", SOON, |mirror| mirror.entries.len() == 1).await;
    etcd.members[0].kill();
    etcd.members[0].start();
    etcd.wait_until_it_answers().await;
    eventually("a commit", SOON, async || store.commit(txn("ours/2")).await.map(drop).map_err(|e| e.to_string())).await;
    mirror.until("the new key", SOON, |mirror| mirror.entries.len() == 2).await;
    let refused: Vec<_> = mirror.losses.iter().filter(|loss| matches!(loss, StoreError::Refused(_))).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_changed_password_is_taken_over_by_a_reload_and_a_wrong_one_is_not() {
    let etcd = etcd_with_logins().await;
    let (settings, file) = settings(&etcd, PASSWORD);
    let store = EtcdStore::connect(settings).await.unwrap();
    store.commit(txn("ours/1")).await.unwrap();
    std::fs::write(&file, "wrong").unwrap();
    assert!(refusal(store.reload().await).contains("--etcd-password-file"));
    store.commit(txn("ours/2")).await.expect("the old login stays in force");
    let options = etcd_client::ConnectOptions::new().with_user("root", PASSWORD);
    let mut root = etcd_client::Client::connect([&etcd.members[0].url], Some(options)).await.unwrap();
    root.user_change_password("us", "new").await.unwrap();
    std::fs::write(&file, "new").unwrap();
    store.reload().await.unwrap();
    store.commit(txn("ours/3")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = refusal(store.reload().await);
    assert!(text.contains("--etcd-password-file") && text.contains("can't be read"), "{text}");
    store.commit(txn("ours/4")).await.unwrap();
}
