import os, time
from psycopg import errors
from psycopg_pool import ConnectionPool

pool = ConnectionPool(os.environ["DATABASE_URL"], kwargs={"autocommit": True}, open=True)

def open_key(project, provider, request_id):
    sql = "SELECT api_key FROM watchllm.resolve_provider_key(%s, %s, request_id => %s)"
    for attempt in (1, 2, 3):
        try:
            with pool.connection() as db:
                return db.execute(sql, (project, provider, request_id)).fetchone()[0]
        except errors.NoData:                    # 02000: there is no such key
            return None
        except errors.InsufficientResources:     # 53000: not recorded, not shown
            if attempt == 3: raise
            time.sleep(0.2 * attempt)

P=os.environ["PROJECT"]
for i in range(8): print('psycopg', open_key(P,'openai','p-%d'%i))
print('psycopg none', open_key(P,'nobody','n'))
try: open_key(P,'groq','n')
except Exception as e: print('psycopg blocked', e.sqlstate, type(e), e)
pool.close()
