//! Health for Prometheus, in its text format: each metric begins with `clapd_`, and has a unit where it has one.
//!
//! Nothing is counted for it: a scrape reads what health has. Labels are ids of sources and prompts, so there are as many series as the
//! configuration has of them.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Site;
use super::failure::{ErrorBody, Failure};
use crate::capture::SourceState;
use crate::health::{FAILING, Health, SourceHealth};

/// What a source's number is called, what it says, and where health has it.
type SourceCount = (&'static str, &'static str, fn(&SourceHealth) -> u64);

const SOURCE_COUNTS: [SourceCount; 8] = [
    ("windows_scored", "Windows that got their scores", |it| it.windows_scored),
    ("windows_skipped", "Windows left out because a newer one was due", |it| it.windows_skipped),
    ("windows_gated", "Silent windows that were not encoded", |it| it.windows_gated),
    ("windows_failed", "Windows that the model failed with", |it| it.windows_failed),
    ("samples_lost", "Samples that found no room", |it| it.samples_lost),
    ("samples_bad", "Samples that were no numbers", |it| it.samples_bad),
    ("source_reopens", "Times that a device was opened again", |it| it.reopens),
    ("source_errors", "Errors that the sound system or a stream reported", |it| it.stream_errors),
];

/// What a number of the whole node is called, what it says, and where health has it.
type NodeCount = (&'static str, &'static str, fn(&Health) -> u64);

const NODE_COUNTS: [NodeCount; 8] = [
    ("outbox_dropped", "Events dropped because too many waited, or for too long", |it| it.events_dropped),
    ("scores_dropped", "Scores replaced by newer ones before they were sent", |it| it.scores_dropped),
    ("mqtt_connections", "Connections that the broker has accepted", |it| it.connections),
    ("mqtt_reconnects", "Connections after the first", |it| it.reconnects),
    ("mqtt_refused", "Messages that the broker refused", |it| it.refused),
    ("events_unconfirmed", "Starts and ends sent to a broker that promises nothing", |it| it.events_unconfirmed),
    ("journal_lost", "Events that are missing in the journal", |it| it.journal_lost),
    ("commands_dropped", "Commands that were not carried out because too many waited", |it| it.commands_dropped),
];

/// Answers with all metrics.
#[utoipa::path(get, path = "/metrics", tag = "metrics", responses((status = 200, content_type = "text/plain", body = String),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn scrape(State(site): State<Arc<Site>>) -> Result<Response, Failure> {
    match text(&site) {
        Ok(text) => Ok(([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response()),
        Err(error) => Err(Failure::busy(format!("the metrics cannot be written: {error}"))),
    }
}

fn text(site: &Arc<Site>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("clapd");
    registry.register_collector(Box::new(Snapshot { site: Arc::clone(site), health: site.view.get().health }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// What is true at a scrape.
struct Snapshot {
    site: Arc<Site>,
    health: Arc<Health>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metrics = Metrics(encoder);
        self.write_node(&mut metrics)?;
        self.write_sources(&mut metrics)?;
        self.write_server(&mut metrics)
    }
}

impl Snapshot {
    fn write_node(&self, metrics: &mut Metrics<'_>) -> fmt::Result {
        let info = &self.site.info;
        metrics.gauges(
            "build_info",
            "What runs here",
            None,
            [(
                [
                    ("version", info.version.as_str()),
                    ("bundle", info.bundle.as_str()),
                    ("bundle_version", info.bundle_version.as_str()),
                    ("pipeline_id", info.pipeline_id.as_str()),
                ],
                1.0,
            )],
        )?;
        let health = &self.health;
        metrics.gauge("uptime", "Time since clapd began", Some(&Unit::Seconds), health.uptime.as_secs_f64())?;
        metrics.gauge(
            "outbox_events",
            "Starts and ends that wait for the broker",
            None,
            health.events_waiting as f64,
        )?;
        metrics.gauge(
            "outbox_on_disk",
            "Whether events that wait outlive clapd",
            None,
            f64::from(u8::from(health.outbox == "disk")),
        )?;
        metrics.gauge(
            "outbox_set_aside_events",
            "Starts and ends that the broker cannot take",
            None,
            health.events_set_aside as f64,
        )?;
        let connected = f64::from(u8::from(health.connected));
        metrics.gauge("mqtt_connected", "Whether the broker is there", None, connected)?;
        for (name, help, count) in NODE_COUNTS {
            metrics.counter(name, help, count(health))?;
        }
        let threads = health.threads.iter().map(|thread| ([("thread", thread.name)], thread.quiet.as_secs_f64()));
        metrics.gauges("thread_quiet", "Time since a thread last got on", Some(&Unit::Seconds), threads)
    }

    fn write_sources(&self, metrics: &mut Metrics<'_>) -> fmt::Result {
        let sources = &self.health.sources;
        for (name, help, count) in SOURCE_COUNTS {
            metrics.counters(name, help, None, sources.iter().map(|it| ([("source", it.id.as_str())], count(it))))?;
        }
        let busy = sources.iter().map(|it| ([("source", it.id.as_str())], it.busy.as_secs_f64()));
        metrics.counters("scoring", "Time that windows took to compute", Some(&Unit::Seconds), busy)?;
        let level = |it: &SourceHealth| it.level_db.map(f64::from);
        let levels = sources.iter().filter_map(|it| Some(([("source", it.id.as_str())], level(it)?)));
        metrics.gauges("input_level_dbfs", "Level of the last second, in dB below full scale", None, levels)?;
        let states = sources.iter().flat_map(|it| {
            let names = SourceState::ALL.iter().map(|state| state.name()).chain(["paused", FAILING]);
            names.map(|name| ([("source", it.id.as_str()), ("state", name)], f64::from(u8::from(it.state == name))))
        });
        metrics.gauges("source_state", "Whether a source is in this state", None, states)?;
        let observed = self.site.observed.get();
        let scores = observed.iter().flat_map(|(source, seen)| {
            seen.scores
                .iter()
                .map(move |(id, score)| ([("source", source.as_str()), ("prompt", id.as_str())], f64::from(*score)))
        });
        metrics.gauges("score", "Newest score of a prompt, 0 to 10", None, scores)?;
        let events = observed.iter().flat_map(|(source, seen)| {
            seen.events.iter().map(move |(id, count)| ([("source", source.as_str()), ("prompt", id.as_str())], *count))
        });
        metrics.counters("events", "Events that began", None, events)
    }

    fn write_server(&self, metrics: &mut Metrics<'_>) -> fmt::Result {
        let (feed, counters) = (&self.site.feed, &self.site.counters);
        metrics.gauge("viewers", "Streams of events that are open", None, feed.viewers() as f64)?;
        metrics.counter("viewer_drops", "Messages that viewers were too slow for", feed.dropped())?;
        metrics.counter("http_requests", "Requests that were let in", counters.requests.get())?;
        metrics.counters(
            "http_refused",
            "Connections, viewers and requests that were not let in",
            None,
            [
                ([("why", "full")], counters.full.get()),
                ([("why", "token")], counters.unauthorised.get()),
                ([("why", "foreign")], counters.foreign.get()),
            ],
        )
    }
}

/// Writes one metric after another.
struct Metrics<'a>(DescriptorEncoder<'a>);

impl Metrics<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn counters<'l, T: EncodeCounterValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], T)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, T, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clapd_core::prompts::PromptId;

    use super::*;
    use crate::health::ThreadHealth;
    use crate::http::View;
    use crate::http::live::SourceObserved;

    /// Each series with its value.
    fn series(site: &Arc<Site>) -> Vec<(String, f64)> {
        let text = text(site).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.into(), value.parse().unwrap())).unwrap())
            .collect()
    }

    fn health(n: u64) -> Health {
        let source = SourceHealth {
            id: "mic".into(),
            state: if n == 0 { "live" } else { "lost" },
            level_db: Some(-(n as i32)),
            samples_lost: n,
            samples_bad: n,
            reopens: n,
            stream_errors: n,
            windows_scored: n,
            windows_skipped: n,
            windows_failed: n,
            windows_gated: n,
            busy: Duration::from_secs(n),
            ..SourceHealth::default()
        };
        Health {
            uptime: Duration::from_secs(n),
            outbox: if n == 0 { "memory" } else { "disk" },
            events_waiting: n,
            events_dropped: n,
            scores_dropped: n,
            connected: n > 0,
            connections: n,
            reconnects: n,
            refused: n,
            events_unconfirmed: n,
            events_set_aside: n,
            commands_dropped: n,
            names_taken: n,
            quiet: Vec::new(),
            journal_lost: n,
            threads: vec![ThreadHealth { name: "mqtt", state: ThreadHealth::OK, quiet: Duration::from_secs(n) }],
            sources: vec![source],
        }
    }

    #[test]
    fn every_metric_is_ours_and_moves_and_has_a_help() {
        let site = Arc::new(Site::for_tests());
        site.view.set_view(&View::default());
        let observed = |n: u64| SourceObserved {
            scores: vec![(PromptId::new("dog").unwrap(), n as f32)],
            events: [(PromptId::new("dog").unwrap(), n)].into(),
        };
        site.view.set_health(&health(0));
        site.observed.set("mic", observed(0));
        let before = series(&site);
        site.view.set_health(&health(3));
        site.observed.set("mic", observed(3));
        let subscription = site.feed.watch(None, false).unwrap();
        subscription.place.count_dropped(2);
        let counters = &site.counters;
        for counter in [&counters.requests, &counters.full, &counters.unauthorised, &counters.foreign] {
            counter.add(1);
        }
        let after = series(&site);
        assert_eq!(before.len(), after.len());
        // Constant for a version; and states in which the source is neither before nor after.
        let constant = |name: &str| {
            name.starts_with("clapd_build_info")
                || name.starts_with("clapd_source_state") && !name.contains("live") && !name.contains("lost")
        };
        for ((name, was), (same, is)) in before.iter().zip(&after) {
            assert!(name == same && name.starts_with("clapd_"), "{name} {same}");
            assert!(was != is || constant(name), "{name} has not moved from {was}");
        }
        let text = text(&site).unwrap();
        for name in after.iter().map(|(name, _)| name.split('{').next().unwrap()) {
            assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
