//! The members of etcd: there, of one cluster, with a leader, new enough, and without an alarm?

use std::collections::BTreeSet;

use super::advice;
use crate::cli::check::report::Report;
use crate::cli::floors;
use crate::store::etcd::{Alarm, ClusterStatus, MemberStatus};

/// Tells about every member; says whether any of them can be worked with.
pub(super) fn check(cluster: &ClusterStatus, strict: bool, report: &mut Report) -> bool {
    let mut clusters = BTreeSet::new();
    let mut usable = false;
    for endpoint in &cluster.endpoints {
        let part = format!("etcd {}", endpoint.url);
        match &endpoint.member {
            Ok(member) => {
                usable |= member.leader_id != 0;
                clusters.insert(member.cluster_id);
                one(member, strict, &part, report);
            }
            Err(error) => report.problem(&part, advice(error)),
        }
    }
    if clusters.len() > 1 {
        report.problem("etcd", "the endpoints belong to different clusters; --etcd-endpoints must name one only");
    }
    match &cluster.alarms {
        Ok(alarms) => alarms.iter().for_each(|raised| alarm(raised, report)),
        // With no member to work with, this has been told already.
        Err(error) if usable => report.warning("etcd", format_args!("its alarms can't be read: {error}")),
        Err(_) => {}
    }
    usable
}

fn one(member: &MemberStatus, strict: bool, part: &str, report: &mut Report) {
    let role = if member.is_leader() { "leader" } else { "follower" };
    let megabytes = member.database_bytes.div_ceil(1024 * 1024);
    let version = &member.version;
    if member.leader_id == 0 {
        report.problem(part, "knows no leader: too few members are up, so nothing can be written; start the others");
    } else if let Some(complaint) = floors::etcd_complaint(version) {
        report.complaint(strict, part, format_args!("{complaint} ({role}, database of {megabytes} MB)"));
    } else {
        report.ok(part, format_args!("version {version}, {role}, database of {megabytes} MB"));
    }
    if member.is_learner {
        report.warning(
            part,
            "is a learner and answers no questions yet; leave it out of --etcd-endpoints until it votes",
        );
    }
    for error in &member.errors {
        report.warning(part, format_args!("complains: {error}"));
    }
}

fn alarm(alarm: &Alarm, report: &mut Report) {
    let advice = match alarm.kind.as_str() {
        "NOSPACE" => "nothing can be written: compact and defragment it, then `etcdctl alarm disarm`",
        "CORRUPT" => "its members disagree: restore it from a backup, or replace the member",
        _ => "look at `etcdctl alarm list`",
    };
    report.problem("etcd", format_args!("alarm {} of member {:x}: {advice}", alarm.kind, alarm.member_id));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::etcd::EndpointStatus;

    fn member(version: &str, cluster_id: u64, leader_id: u64) -> MemberStatus {
        MemberStatus {
            version: version.to_owned(),
            cluster_id,
            member_id: 1,
            leader_id,
            database_bytes: 20_480,
            is_learner: false,
            errors: Vec::new(),
        }
    }

    /// Usable, number of warnings, number of problems.
    fn verdict(members: Vec<Result<MemberStatus, StoreError>>, alarms: &[&str], strict: bool) -> (bool, usize, usize) {
        let endpoints = members.into_iter().map(|member| EndpointStatus { url: "http://x:1".to_owned(), member });
        let alarms = alarms.iter().map(|kind| Alarm { member_id: 1, kind: (*kind).to_owned() }).collect();
        let cluster = ClusterStatus { endpoints: endpoints.collect(), alarms: Ok(alarms) };
        let mut report = Report::default();
        let usable = check(&cluster, strict, &mut report);
        (usable, report.warnings(), report.problems())
    }

    #[test]
    fn each_fault_of_a_member_is_a_finding() {
        let away = || Err(StoreError::Unavailable("away".to_owned()));
        assert_eq!(verdict(vec![Ok(member("3.5.16", 1, 1))], &[], true), (true, 0, 0));
        assert_eq!(verdict(vec![Ok(member("3.6.0-rc.1", 1, 2))], &[], true), (true, 0, 0));
        assert_eq!(verdict(vec![Ok(member("3.4.23", 1, 1))], &[], false), (true, 1, 0));
        assert_eq!(verdict(vec![Ok(member("3.5.2", 1, 1))], &[], true), (true, 0, 1));
        assert_eq!(verdict(vec![Ok(member("of old", 1, 1))], &[], true), (true, 0, 1));
        assert_eq!(verdict(vec![Ok(member("3.5.16", 1, 0))], &[], false), (false, 0, 1));
        assert_eq!(verdict(vec![Ok(member("3.5.16", 1, 1)), away()], &[], false), (true, 0, 1));
        assert_eq!(verdict(vec![away()], &[], false), (false, 0, 1));
        assert_eq!(verdict(vec![Ok(member("3.5.16", 1, 1)), Ok(member("3.5.16", 2, 1))], &[], false), (true, 0, 1));
        assert_eq!(verdict(vec![Ok(member("3.5.16", 1, 1))], &["NOSPACE"], false), (true, 0, 1));
        let learner = MemberStatus { is_learner: true, errors: vec!["slow".to_owned()], ..member("3.5.16", 1, 2) };
        assert_eq!(verdict(vec![Ok(learner)], &[], false), (true, 2, 0));
    }
}
