//! Programs, ports and patience.

pub(crate) mod api;
pub(crate) mod certificates;
pub(crate) mod chaos_proxy;
pub(crate) mod chp;
pub(crate) mod embedded;
pub(crate) mod etcd;
pub(crate) mod etcd_pods;
pub(crate) mod fake_traefik;
pub(crate) mod flaky_store;
pub(crate) mod http;
pub(crate) mod one_machine;
pub(crate) mod pointsman;
pub(crate) mod process;
pub(crate) mod raw_http;
pub(crate) mod servers;
pub(crate) mod system;
pub(crate) mod time_machine;
pub(crate) mod tls;
pub(crate) mod traefik;
pub(crate) mod wait;
