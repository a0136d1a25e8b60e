from flowyml.core.observability import (
    set_metrics_collector,
    ConsoleMetricsCollector,
    PrometheusMetricsCollector
)

# Development: log metrics to console
set_metrics_collector(ConsoleMetricsCollector())

# Production: export to Prometheus
set_metrics_collector(PrometheusMetricsCollector(
    endpoint="http://prometheus:9090",
    job_name="flowyml"
))
