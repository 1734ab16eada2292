//! What we know about Traefik: how a routing table is written in its dynamic configuration.
