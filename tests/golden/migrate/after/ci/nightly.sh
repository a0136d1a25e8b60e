#!/usr/bin/env bash
set -e
pip install flowyml~=1.0
STATUS=$(python -m nightly.launch | tail -1)
if [ "$STATUS" = "SUCCEEDED" ]; then
  echo "COMPLETED"
fi
case "$STATUS" in
  FAILED|CANCELLED) exit 1 ;;
esac
