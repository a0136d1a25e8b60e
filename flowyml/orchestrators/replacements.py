"""Replacements of Airflow operators in a pipeline for any engine."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PROVIDERS", "READY_MADE", "replacement"]

READY_MADE: Mapping[str, str] = {
    "BashOperator": "flowyml.steps.bash",
    "BashSensor": "a step with retry=…, which raises until the command succeeds",
    "HttpOperator": "flowyml.steps.http",
    "SimpleHttpOperator": "flowyml.steps.http",
    "HttpSensor": "flowyml.steps.wait_for_http",
    "FileSensor": "flowyml.steps.wait_for_file",
    "S3KeySensor": "flowyml.steps.wait_for_file with an s3:// URL",
    "GCSObjectExistenceSensor": "flowyml.steps.wait_for_file with a gs:// URL",
    "S3CopyObjectOperator": "flowyml.steps.copy_files",
    "S3FileTransformOperator": "a step that reads and writes with fsspec",
    "GCSToGCSOperator": "flowyml.steps.copy_files, or move_files",
    "LocalFilesystemToS3Operator": "flowyml.steps.copy_files",
    "LocalFilesystemToGCSOperator": "flowyml.steps.copy_files",
    "S3ToGCSOperator": "flowyml.steps.copy_files",
    "GCSToS3Operator": "flowyml.steps.copy_files",
    "EmailOperator": "flowyml.steps.email",
    "SQLExecuteQueryOperator": "flowyml.steps.sql",
    "PostgresOperator": "flowyml.steps.sql",
    "MySqlOperator": "flowyml.steps.sql",
    "SqliteOperator": "flowyml.steps.sql",
    "MsSqlOperator": "flowyml.steps.sql",
    "OracleOperator": "flowyml.steps.sql",
    "SnowflakeOperator": "flowyml.steps.sql, with the package snowflake-sqlalchemy",
    "RedshiftSQLOperator": "flowyml.steps.sql, with the package sqlalchemy-redshift",
    "SqlSensor": "a step with retry=…, which raises until flowyml.steps.sql finds a row",
    "DockerOperator": "flowyml.steps.docker_run",
    "EmptyOperator": "nothing, or a step that does nothing",
    "DummyOperator": "nothing, or a step that does nothing",
    "PythonOperator": "its function, with @step",
    "BranchPythonOperator": "a step that returns the choice, and when(…)",
    "ShortCircuitOperator": "a step that returns True or False, and when(…)",
    "TriggerDagRunOperator": "external_dag of flowyml_airflow, from any engine",
    "ExternalTaskSensor": "a schedule that leaves time, or one pipeline that holds both",
    "TimeDeltaSensor": "a step that sleeps",
    "LatestOnlyOperator": "a schedule without catch-up",
}
"""Replacements by the name of the operator's class, whatever its module."""

PROVIDERS: Mapping[str, str] = {
    "airflow.providers.amazon": "a step that calls boto3; copy files with flowyml.steps.copy_files",
    "airflow.providers.google": (
        "a step that calls the service's google-cloud client; copy files with flowyml.steps.copy_files"
    ),
    "airflow.providers.microsoft.azure": "a step that calls the service's azure client",
    "airflow.providers.cncf.kubernetes": "a step on the engine 'kubeflow', or one that calls the package kubernetes",
    "airflow.providers.docker": "flowyml.steps.docker_run",
    "airflow.providers.postgres": "flowyml.steps.sql, with the package psycopg",
    "airflow.providers.mysql": "flowyml.steps.sql, with the package pymysql",
    "airflow.providers.sqlite": "flowyml.steps.sql",
    "airflow.providers.common.sql": "flowyml.steps.sql",
    "airflow.providers.snowflake": "flowyml.steps.sql, with the package snowflake-sqlalchemy",
    "airflow.providers.databricks": "a step that calls databricks-sdk",
    "airflow.providers.apache.spark": "flowyml.steps.bash with spark-submit, or a step with pyspark",
    "airflow.providers.apache.hive": "flowyml.steps.sql, with the package pyhive",
    "airflow.providers.dbt": "flowyml.steps.bash with `dbt run`, or a step that calls dbt's dbtRunner",
    "airflow.providers.ssh": "a step that calls paramiko, or flowyml.steps.bash with ssh",
    "airflow.providers.sftp": "flowyml.steps.copy_files with an sftp:// URL",
    "airflow.providers.ftp": "flowyml.steps.copy_files with an ftp:// URL",
    "airflow.providers.http": "flowyml.steps.http",
    "airflow.providers.smtp": "flowyml.steps.email",
    "airflow.providers.slack": "flowyml.steps.http with the webhook's URL as a secret",
    "airflow.providers.standard": "a step: what it does is plain Python",
    "cosmos": "flowyml.steps.bash with `dbt run`",
}
"""Replacements by the beginning of the operator's import path; the longest match counts."""


def replacement(path: str) -> str:
    """Return the replacement of an operator on any engine, by its import path.

    >>> replacement("airflow.providers.http.operators.http.HttpOperator")
    'flowyml.steps.http'
    >>> replacement("airflow.providers.amazon.aws.operators.emr.EmrAddStepsOperator")
    'a step that calls boto3; copy files with flowyml.steps.copy_files'
    >>> replacement("our.plugins.LoadOperator")
    'a step that does the same'
    """
    name = path.rpartition(".")[2]
    if name in READY_MADE:
        return READY_MADE[name]
    fitting = [prefix for prefix in PROVIDERS if path == prefix or path.startswith(f"{prefix}.")]
    return PROVIDERS[max(fitting, key=len)] if fitting else "a step that does the same"
