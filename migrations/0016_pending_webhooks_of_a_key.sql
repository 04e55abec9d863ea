-- How many webhooks of a key are still to be taken: asked with each request that wants one more.
create index webhook_deliveries_pending on webhook_deliveries (key_id) where status = 'pending';
