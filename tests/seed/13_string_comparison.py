from flowyml.core.execution_status import ExecutionStatus
if status == ExecutionStatus.RUNNING:
