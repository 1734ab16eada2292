//! What the tests are told from outside, and what containers have in common.

use std::env;

use testcontainers::core::ImageExt as _;
use testcontainers::{ContainerRequest, GenericImage};

/// The token of the API.
pub(crate) const TOKEN: &str = "a-token-for-tests";

/// The user of the image, and a group of its own.
pub(crate) const USER: &str = "65532:65532";

/// Pointsman's image: `POINTSMAN_IMAGE`, else the one that the chart names.
pub(crate) fn pointsman_image() -> String {
    named("POINTSMAN_IMAGE", "quay.io/pointsman/pointsman:0.1.0")
}

/// etcd's image.
pub(crate) fn etcd_image() -> String {
    named("POINTSMAN_TEST_ETCD_IMAGE", "quay.io/coreos/etcd:v3.5.16")
}

/// Traefik's image.
pub(crate) fn traefik_image() -> String {
    named("POINTSMAN_TEST_TRAEFIK_IMAGE", "traefik:v3.7.15")
}

/// The release of Traefik in its image, as its tag says.
pub(crate) fn traefik_version() -> String {
    let image = traefik_image();
    let tag = image.rsplit(':').next().expect("a tag");
    tag.trim_start_matches('v').to_owned()
}

/// Whether our image was built as it is released. One that was built for tests is larger.
pub(crate) fn is_release() -> bool {
    env::var("POINTSMAN_TEST_IMAGE_PROFILE").is_ok_and(|profile| profile == "release")
}

fn named(variable: &str, default: &str) -> String {
    env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// An image by its whole name.
pub(crate) fn generic(name: &str) -> GenericImage {
    let (repository, tag) = name.rsplit_once(':').unwrap_or_else(|| panic!("{name} has no tag"));
    GenericImage::new(repository, tag)
}

/// What the chart's `securityContext` asks for: no root, nothing to write to, no capability, no way to get any.
pub(crate) fn restricted(
    request: impl Into<ContainerRequest<GenericImage>>,
    user: &str,
) -> ContainerRequest<GenericImage> {
    request
        .into()
        .with_user(user)
        .with_readonly_rootfs(true)
        .with_cap_drop("ALL")
        .with_security_opt("no-new-privileges:true")
}
