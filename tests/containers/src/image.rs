//! The image itself.

use std::time::Duration;

use testcontainers::ImageExt as _;
use testcontainers::bollard::models::ImageInspect;
use testcontainers::core::client::docker_client_instance;

use crate::part::Part;
use crate::settings::{USER, generic, is_release, pointsman_image, restricted};
use crate::stage::Stage;
use crate::wait::within;

/// The most bytes of an image that is released.
const LARGEST: i64 = 25_000_000;

async fn inspected() -> ImageInspect {
    let docker = docker_client_instance().await.expect("a Docker daemon");
    docker.inspect_image(&pointsman_image()).await.expect("our image")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_is_and_runs_as_nobody_special() {
    let image = inspected().await;
    let config = image.config.expect("an image has settings");
    let user = config.user.unwrap_or_default();
    let number: u32 = user.split(':').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| {
        panic!("the user {user:?} is no number, so Kubernetes can't tell that it isn't root");
    });
    assert_ne!(number, 0, "it runs as root");
    let entrypoint = config.entrypoint.unwrap_or_default();
    assert_eq!(entrypoint, ["/usr/local/bin/pointsman"]);
    let labels = config.labels.unwrap_or_default();
    for name in ["title", "description", "licenses", "version", "revision"] {
        let label = labels.get(&format!("org.opencontainers.image.{name}"));
        assert!(label.is_some_and(|value| !value.is_empty() && value != "unknown"), "{name} is {label:?}");
    }
    if is_release() {
        let size = image.size.expect("it has a size");
        assert!(size < LARGEST, "{size} bytes are too many");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_in_it_that_an_intruder_could_use() {
    let stage = Stage::new().await;
    for program in ["/bin/sh", "/bin/bash", "/busybox/sh", "sh", "/usr/bin/env", "/usr/bin/curl"] {
        let said = stage.why_it_does_not_run(program).await;
        let said = said.unwrap_or_else(|| panic!("{program} runs in our image"));
        assert!(said.contains("no such file") || said.contains("not found"), "{program}: {said}");
    }
    let own = stage.why_it_does_not_run("/usr/local/bin/pointsman").await;
    assert_eq!(own, None, "what is there does run, so the above means something");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_one_sentence_and_a_code_of_their_own() {
    within(Duration::from_secs(60), async {
        let stage = Stage::new().await;
        let request = restricted(generic(&pointsman_image()), USER)
            .with_cmd(["--etcd-endpoints", "ftp://etcd:2379"])
            .with_env_var("CONFIGPROXY_AUTH_TOKEN", "a-secret-that-no-log-shows");
        let part = Part::start(&stage, "wrong", &[], request).await;
        assert_eq!(part.exit_code().await, 64);
        let said = part.log().await;
        assert!(said.contains("etcd-endpoints") && said.contains("ftp://etcd:2379"), "{said}");
        assert!(!said.contains("a-secret-that-no-log-shows"), "{said}");

        let part = Part::start(&stage, "unknown", &[], generic(&pointsman_image()).with_cmd(["--no-such-flag"])).await;
        assert_eq!(part.exit_code().await, 2);
        let said = part.log().await;
        assert!(said.contains("--no-such-flag"), "{said}");
    })
    .await;
}
