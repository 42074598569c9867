-- The outbox: jobs that wait to be published, each written in the transaction that it belongs to. PostgreSQL 13 or later.

CREATE TABLE outbox (
  -- The order of publishing. Not what tells rows apart: after a failover or a restore PostgreSQL may give a number twice.
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- The job's idempotency token. Unique in all databases that publish to the same Redis, which a number is not.
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  -- What Redis would refuse later is refused here, while the caller can still do something about it.
  stream text NOT NULL CHECK (stream ~ '^[A-Za-z0-9_.:{}-]{1,200}$'),
  job text NOT NULL CHECK (job ~ '^[A-Za-z0-9_.:-]{1,100}$'),
  -- json, not jsonb: it takes every text that JSON can hold, and keeps it as it is.
  data json NOT NULL DEFAULT 'null' CHECK (octet_length(data::text) <= 1048576),
  created_at timestamptz NOT NULL DEFAULT now(),
  -- From when on the job is delivered; null is at once. Jobs can be scheduled for the next ten years.
  run_at timestamptz CHECK (run_at < created_at + interval '9 years'),
  -- Of the payload, as the job's definition says; null is the first.
  version integer CHECK (version BETWEEN 2 AND 1000),
  -- The relay's own: who has the row and until when, and since when its job may be in Redis.
  relay uuid,
  taken_until timestamptz,
  maybe_since timestamptz
) WITH (
  -- Every row is updated once and deleted: there is room for the new version on its page, and vacuum comes by the number of
  -- rows that went through and not by their share of a table that is nearly empty.
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_cost_delay = 0
);

-- Rows that were not published and will not be by themselves, with the reason.
CREATE TABLE outbox_failed (
  id uuid NOT NULL,
  stream text NOT NULL,
  job text NOT NULL,
  data json NOT NULL,
  run_at timestamptz,
  version integer,
  created_at timestamptz NOT NULL,
  failed_at timestamptz NOT NULL DEFAULT now(),
  reason text NOT NULL
);

-- Wakes the relays when a transaction with new rows commits, whoever wrote them.
CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NOTIFY outbox;
  RETURN NULL;
END $$;

CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
