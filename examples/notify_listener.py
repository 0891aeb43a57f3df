"""Tells a Slack channel (any webhook that takes {"text": …}) of each new incident.

Needs psycopg 3, DATABASE_URL of a login role with watchllm_auditor, and WEBHOOK_URL. A notification
says only that there is something to read, and any role can forge one. What is told is read from
open_incidents, under this role's own rights. A connection or a webhook that fails is tried again.
"""
import json
import os
import sys
import time
import urllib.request

import psycopg

OPEN = "SELECT id, type, severity, details FROM watchllm.open_incidents"
told = set()


def tell(incident, kind, severity, details):
    text = f"{severity}: {kind}: {details['what']} (incident {incident})"
    body = json.dumps({"text": text}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["WEBHOOK_URL"], body, headers)
    urllib.request.urlopen(request, timeout=30)
    told.add(incident)


def listen():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        db.execute("LISTEN watchllm_security")
        while True:  # at the start too: what came while nobody listened
            for row in db.execute(OPEN):
                if row[0] not in told:
                    tell(*row)
            # and once a minute, should a notification get lost
            next(db.notifies(timeout=60, stop_after=1), None)


while True:
    try:
        listen()
    except (psycopg.Error, OSError) as error:  # OSError: the webhook did not answer
        print(f"{type(error).__name__}; again in 5 seconds", file=sys.stderr)
        time.sleep(5)
