#!/usr/bin/env bash
set -e
pip install flowyml==0.9.4
STATUS=$(python -m nightly.launch | tail -1)
if [ "$STATUS" = "SUCCEEDED" ]; then
  echo "COMPLETED"
fi
case "$STATUS" in
  FAILED|CANCELLED) exit 1 ;;
esac
