from flowyml.core.retry_policy import OrchestratorRetryPolicy

policy = OrchestratorRetryPolicy(
    max_attempts=3,  # Retry up to 3 times
    initial_delay_seconds=10,  # Wait 10s before first retry
    backoff_multiplier=2.0,  # Double the delay each retry
    retryable_errors=["OOM", "Timeout"]  # Only retry specific errors
)

orchestrator = RemoteOrchestrator(
    url="http://server:8000",
    retry_policy=policy
)
