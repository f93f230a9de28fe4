-- What somebody should look at, so that figures need no walk.
create index messages_unknown on messages (changed_at) where state = 'unknown';
create index profiles_set_aside on profiles (quarantined_because) where quarantined_at is not null;
