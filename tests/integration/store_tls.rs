//! Certificates: of the right authority, of a wrong one, missing, and renewed.

use pointsman::store::etcd::{EtcdSettings, EtcdStore};
use pointsman::store::{Store, StoreError, Txn};

use crate::store_contract::put;
use crate::support::certificates::Authority;
use crate::support::etcd::{Etcd, Wanted};

fn txn() -> Txn {
    Txn { guards: Vec::new(), ops: vec![put("k", "v")] }
}

async fn failure(settings: EtcdSettings) -> String {
    let store = EtcdStore::connect(settings).await.expect("the files are good");
    match store.get("k").await {
        Err(StoreError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_right_authority_is_trusted() {
    let etcd = Etcd::start_as(Wanted { tls: true, ..Wanted::default() }).await;
    etcd.store().await.commit(txn()).await.unwrap();
    let wrong = Authority::new("somebody-else", etcd.folder.path());
    let text = failure(EtcdSettings { ca: Some(wrong.file), ..etcd.settings() }).await;
    assert!(text.contains("UnknownIssuer") && text.contains("--etcd-ca"), "{text}");
    let text = failure(EtcdSettings { ca: None, ..etcd.settings() }).await;
    assert!(text.contains("--etcd-ca"), "the system's authorities did not sign it: {text}");
    let plain = etcd.members[0].url.replace("https://", "http://");
    let text = failure(EtcdSettings::new([plain])).await;
    assert!(text.contains("http://127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let wanted = Wanted { tls: true, client_certificates: true, ..Wanted::default() };
    let etcd = Etcd::start_as(wanted).await;
    let tls = etcd.tls.as_ref().unwrap();
    let with = |cert: &std::path::Path, key: &std::path::Path| EtcdSettings {
        cert: Some(cert.to_owned()),
        key: Some(key.to_owned()),
        ..etcd.settings()
    };
    let store = EtcdStore::connect(with(&tls.client.cert, &tls.client.key)).await.unwrap();
    store.commit(txn()).await.unwrap();
    assert!(store.status().await.endpoints[0].member.is_ok());

    let text = failure(etcd.settings()).await;
    assert!(text.contains("--etcd-cert"), "{text}");
    let stranger = Authority::new("somebody-else", etcd.folder.path()).sign("stranger");
    let text = failure(with(&stranger.cert, &stranger.key)).await;
    assert!(text.contains("--etcd-cert"), "{text}");

    // A renewed certificate is taken over; one that etcd doesn't know is not.
    let renewed = tls.authority.sign("renewed");
    std::fs::copy(&stranger.cert, &tls.client.cert).unwrap();
    std::fs::copy(&stranger.key, &tls.client.key).unwrap();
    assert!(store.reload().await.is_err());
    store.commit(txn()).await.expect("the old certificate stays in force");
    std::fs::copy(&renewed.cert, &tls.client.cert).unwrap();
    std::fs::copy(&renewed.key, &tls.client.key).unwrap();
    store.reload().await.unwrap();
    store.commit(txn()).await.unwrap();
    // The new one is really shown: a store that could not get in with the old one can.
    let outside = EtcdStore::connect(with(&stranger.cert, &stranger.key)).await.unwrap();
    assert!(outside.get("k").await.is_err());
    std::fs::copy(&renewed.cert, &stranger.cert).unwrap();
    std::fs::copy(&renewed.key, &stranger.key).unwrap();
    outside.reload().await.unwrap();
    outside.commit(txn()).await.unwrap();
}

#[tokio::test]
async fn files_that_hold_nothing_useful_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk");
    std::fs::write(&junk, "junk").unwrap();
    let base = || EtcdSettings::new(["https://127.0.0.1:1"]);
    let cases = [
        (EtcdSettings { ca: Some(junk.clone()), ..base() }, "--etcd-ca"),
        (EtcdSettings { ca: Some(folder.path().join("nothing")), ..base() }, "can't be read"),
        (EtcdSettings { cert: Some(junk.clone()), ..base() }, "--etcd-key"),
        (EtcdSettings { key: Some(junk.clone()), ..base() }, "--etcd-cert"),
        (EtcdSettings { cert: Some(junk.clone()), key: Some(junk.clone()), ..base() }, "--etcd-cert"),
        (EtcdSettings { user: Some("us".to_owned()), ..base() }, "--etcd-password-file"),
        (EtcdSettings::new([""; 0]), "--etcd-endpoints"),
    ];
    for (settings, expected) in cases {
        match EtcdStore::connect(settings).await {
            Err(StoreError::Refused(text)) if text.contains(expected) => {}
            other => panic!("{expected}: {other:?}"),
        }
    }
}
