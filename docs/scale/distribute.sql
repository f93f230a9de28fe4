-- Spreads the tables of Rekindle over machines by hash, with Citus 12 or later: see "Beyond one PostgreSQL" in docs/scale.md.
--
-- Before: the extension is installed on every node, the coordinator knows the workers and itself (citus_set_coordinator_host,
-- citus_add_node), all daemons are stopped, and the tables are there: any command of Rekindle's that writes has made them. Then, once:
--
--     psql --set ON_ERROR_STOP=1 --single-transaction --file docs/scale/distribute.sql postgres://...
--
-- Every table of the schema has its line here; a test compares.

create extension if not exists citus;
select create_distributed_function('bucket(bigint)');

-- What belongs to a person: by bucket, and all of it together, so that one person is on one node.
select create_distributed_table('profiles', 'bucket', colocate_with => 'none', shard_count => 32);
select create_distributed_table('claims', 'bucket', colocate_with => 'profiles');
select create_distributed_table('events', 'bucket', colocate_with => 'profiles');
select create_distributed_table('consents', 'bucket', colocate_with => 'profiles');
select create_distributed_table('messages', 'bucket', colocate_with => 'profiles');
select create_distributed_table('attempts', 'bucket', colocate_with => 'profiles');
select create_distributed_table('postings', 'bucket', colocate_with => 'profiles');
select create_distributed_table('allocations', 'bucket', colocate_with => 'profiles');
select create_distributed_table('exposures', 'bucket', colocate_with => 'profiles');
select create_distributed_table('entries', 'bucket', colocate_with => 'profiles');
select create_distributed_table('removed_events', 'bucket', colocate_with => 'profiles');
select create_distributed_table('removed_rows', 'bucket', colocate_with => 'profiles');

-- What is found by a name or an address.
select create_distributed_table('identities', 'value', colocate_with => 'none', shard_count => 32);
select create_distributed_table('suppressions', 'address_hash', colocate_with => 'none', shard_count => 32);
select create_distributed_table('soft_bounces', 'address_hash', colocate_with => 'suppressions');
select create_distributed_table('erasures', 'identity_hash', colocate_with => 'none', shard_count => 32);

-- What is small and read everywhere: on every node.
select create_reference_table('environment');
select create_reference_table('counters');
select create_reference_table('workers');
select create_reference_table('keys');
select create_reference_table('api_keys');
select create_reference_table('rule_texts');
select create_reference_table('rule_set_texts');
select create_reference_table('publications');
select create_reference_table('rule_states');
select create_reference_table('rule_history');
select create_reference_table('refused_rules');
select create_reference_table('pauses');
select create_reference_table('heartbeats');
select create_reference_table('downtimes');
select create_reference_table('quiet_spans');

-- What is counted beyond one person, and what is nobody's: as they are, on the coordinator.
-- stays here: rule_entries
-- stays here: budget_uses
-- stays here: source_hours
-- stays here: removed_attempts
-- stays here: removals
-- stays here: rejects
-- stays here: backup

-- From now on every process works bucket by bucket, whatever its settings say.
insert into counters (name, value) values ('distributed', 1) on conflict do nothing;
