"""The types that every layer shares: statuses, records of runs, policies, hooks, errors.

Standard library only. They are independent of pipelines, plans and engines.
"""
