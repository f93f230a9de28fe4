-- What somebody should look at is counted whenever figures are asked for, so it must not take a walk through a table: messages of which
-- nobody knows whether they went out, and people who were set aside.
create index messages_unknown on messages (changed_at) where state = 'unknown';
create index profiles_set_aside on profiles (quarantined_because) where quarantined_at is not null;
