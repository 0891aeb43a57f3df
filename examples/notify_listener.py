"""Tells a Slack channel (any webhook that takes {"text": …}) of each new incident.

Needs psycopg 3, DATABASE_URL of a login role with watchllm_auditor, and WEBHOOK_URL. A notification says only that there is
something to read, and any role can forge one: what is told is read from open_incidents, under this role's own rights.
"""
import json, os, urllib.request
import psycopg

told = set()
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
    db.execute("LISTEN watchllm_security")
    while True:  # once at the start too: what came while nobody listened
        for id, type, severity, details in db.execute("SELECT id, type, severity, details FROM watchllm.open_incidents"):
            if id not in told:
                body = json.dumps({"text": f"{severity}: {type}: {details['what']} (incident {id})"}).encode()
                urllib.request.urlopen(urllib.request.Request(os.environ["WEBHOOK_URL"], body, {"Content-Type": "application/json"}))
                told.add(id)
        next(db.notifies(timeout=60, stop_after=1), None)  # and once a minute, should a notification get lost
