if status == "RUNNING":
