//! From numbers to Prometheus' text, by the names as they stand.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::telemetry::durations::Counted;

/// Writes metrics one after the other.
pub(super) struct Writer<'a>(pub(super) DescriptorEncoder<'a>);

impl Writer<'_> {
    /// A counter. The library adds `_total` to the name of each, as its newer format wants it; configurable-http-proxy's names
    /// end otherwise, and dashboards know them so. Those go without a kind, which changes nothing about how they are used.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        match name.strip_suffix("_total") {
            Some(stem) => ConstCounter::new(value).encode(self.start(stem, help, MetricType::Counter)?),
            None => ConstGauge::new(value).encode(self.start(name, help, MetricType::Unknown)?),
        }
    }

    /// A counter with labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let stem = name.strip_suffix("_total");
        let kind = if stem.is_some() { MetricType::Counter } else { MetricType::Unknown };
        let mut family = self.start(stem.unwrap_or(name), help, kind)?;
        for (labels, value) in values {
            let series = family.encode_family(&labels)?;
            match stem {
                Some(_) => ConstCounter::new(value).encode(series)?,
                None => ConstGauge::new(value).encode(series)?,
            }
        }
        Ok(())
    }

    /// A counter of seconds or the like; its name ends in `_total`, which the library adds to the `stem`.
    pub(super) fn counter_f64(&mut self, stem: &str, help: &str, value: f64) -> fmt::Result {
        ConstCounter::new(value).encode(self.start(stem, help, MetricType::Counter)?)
    }

    /// A gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.start(name, help, MetricType::Gauge)?)
    }

    /// A gauge with labels.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.start(name, help, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str, counted: &Counted) -> fmt::Result {
        let mut encoder = self.start(name, help, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(counted.sum_s, counted.count, &counted.buckets, None)
    }

    fn start<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}
