//! Metrics of the admin interface and the process; the broker adds its own.

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::process;

/// Counters of requests, and gauges filled when they are asked for.
pub struct AdminMetrics {
    registry: Registry,
    requests: IntCounterVec,
    serving: IntGauge,
    resident_bytes: IntGauge,
    cpu_seconds: Gauge,
    open_files: IntGauge,
    threads: IntGauge,
}

impl AdminMetrics {
    pub fn new(version: &str) -> Self {
        let registry = Registry::new();
        let info = vector(
            "flotilla_info",
            "Always 1; its label is the version",
            "version",
        );
        info.with_label_values(&[version]).set(1);
        let requests = IntCounterVec::new(
            Opts::new(
                "flotilla_admin_requests_total",
                "Requests to the admin interface by status class",
            ),
            &["status"],
        )
        .expect("the name and the label are fixed and valid");
        let metrics = Self {
            requests,
            serving: gauge(
                "flotilla_serving",
                "1 while the node takes requests: started, ready and not stopping",
            ),
            resident_bytes: gauge("process_resident_memory_bytes", "Memory in use"),
            cpu_seconds: Gauge::new(
                "process_cpu_seconds_total",
                "Processor time so far, user and system",
            )
            .expect("the name is fixed and valid"),
            open_files: gauge("process_open_fds", "Open files and sockets"),
            threads: gauge("process_threads", "Threads"),
            registry,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 7] = [
            Box::new(info),
            Box::new(metrics.requests.clone()),
            Box::new(metrics.serving.clone()),
            Box::new(metrics.resident_bytes.clone()),
            Box::new(metrics.cpu_seconds.clone()),
            Box::new(metrics.open_files.clone()),
            Box::new(metrics.threads.clone()),
        ];
        for collector in collectors {
            metrics
                .registry
                .register(collector)
                .expect("every name above is registered once");
        }
        metrics
    }

    /// Counts one answered request.
    pub fn count_request(&self, status: u16) {
        let class = match status {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[class]).inc();
    }

    /// The metrics as Prometheus text.
    pub fn text(&self, serving: bool) -> Result<String, prometheus::Error> {
        let facts = process::read();
        self.serving.set(i64::from(serving));
        let whole = |gauge: &IntGauge, value: Option<u64>| {
            if let Some(value) = value {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        whole(&self.resident_bytes, facts.resident_bytes);
        whole(&self.open_files, facts.open_files);
        whole(&self.threads, facts.threads);
        if let Some(seconds) = facts.cpu_seconds {
            self.cpu_seconds.set(seconds);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is fixed and valid")
}

fn vector(name: &str, help: &str, label: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), &[label])
        .expect("the name and the label are fixed and valid")
}
