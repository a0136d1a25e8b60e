class SubmissionResult:
    job_id: str  # Unique job identifier
    status: ExecutionStatus  # Current execution status
    duration_seconds: float  # Elapsed time (if completed)
    outputs: dict  # Pipeline outputs (if completed)
    error: Optional[str]  # Error message (if failed)

    def wait_for_completion(
        self,
        timeout: int = 3600,  # Max wait time in seconds
        poll_interval: int = 5  # Seconds between status checks
    ) -> "SubmissionResult": ...

    def cancel(self) -> bool: ...  # Cancel a running job
