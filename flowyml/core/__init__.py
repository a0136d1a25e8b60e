"""The words that every layer shares: statuses, records of runs, policies, hooks, errors.

Standard library only. Nothing here knows a pipeline, a plan or an engine.
"""
