-- Queues, what is in them, and how messages find them.

create sequence {schema}.places as bigint;

create table {schema}.queues (
    id bigint generated always as identity primary key,
    name text collate "C" not null unique,
    settings jsonb not null,
    messages_max bigint,
    bytes_max bigint,
    rejects boolean not null,
    ttl bigint,
    lease bigint,
    deliveries_max integer,
    has_dead_letters boolean not null,
    dead_exchange text,
    dead_key text,
    priority_max smallint not null,
    dedup bigint,
    single_active boolean not null,
    auto_delete boolean not null,
    paused boolean not null default false
);

-- Sums are added up from rows, so nobody waits for a counter.
create table {schema}.tallies (
    queue bigint not null,
    messages bigint not null default 0,
    bytes bigint not null default 0,
    published bigint not null default 0,
    acked bigint not null default 0,
    returned bigint not null default 0,
    dead bigint not null default 0,
    dropped bigint not null default 0,
    purged bigint not null default 0
);
create index tallies_queue on {schema}.tallies (queue);

-- States: 0 ready, 1 delayed until `at`, 2 in flight (until `at`, if there is one), 3 parked behind
-- another message of its ordering key.
create table {schema}.messages (
    id bigint primary key,
    queue bigint not null,
    state smallint not null,
    priority smallint not null,
    place bigint not null,
    key bytea,
    at bigint,
    expires bigint,
    token bigint not null default 0,
    session bigint,
    consumer bigint,
    call bytea,
    home bigint,
    attempts integer not null default 0,
    level smallint not null,
    published bigint not null,
    exchange text not null,
    routing_key text not null,
    message_id bytea,
    headers bytea,
    deaths jsonb,
    body bytea not null
);
create index messages_ready on {schema}.messages (queue, priority desc, place) where state = 0;
create index messages_other on {schema}.messages (queue, state) where state <> 0;
create index messages_timed on {schema}.messages (state, at)
    where state in (1, 2) and at is not null;
create index messages_expiring on {schema}.messages (expires)
    where expires is not null and state <> 2;
create index messages_session on {schema}.messages (session) where state = 2;
create index messages_key on {schema}.messages (queue, key, state) where key is not null;
alter table {schema}.messages set (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

create table {schema}.exchanges (
    id bigint generated always as identity primary key,
    name text collate "C" not null unique,
    kind smallint not null,
    durable boolean not null,
    auto_delete boolean not null,
    internal boolean not null
);

create table {schema}.bindings (
    id bigint generated always as identity primary key,
    exchange bigint not null,
    to_queue bigint,
    to_exchange bigint,
    key text not null,
    -- A topic's pattern as a regular expression over ".word.word".
    pattern text not null,
    arguments bytea[] not null,
    match_all boolean not null
);
create index bindings_exchange on {schema}.bindings (exchange, key);
create index bindings_queue on {schema}.bindings (to_queue) where to_queue is not null;
create index bindings_to_exchange on {schema}.bindings (to_exchange) where to_exchange is not null;

-- Sessions that have deliveries or consumers, and when they end unless they show that they live.
create table {schema}.owners (session bigint primary key, until bigint);
create index owners_until on {schema}.owners (until) where until is not null;

create table {schema}.consumers (
    id bigint generated always as identity primary key,
    handle bigint not null unique,
    queue bigint not null,
    session bigint not null,
    prefetch integer not null,
    exclusive boolean not null,
    label text
);
create index consumers_queue on {schema}.consumers (queue);
create index consumers_session on {schema}.consumers (session);

-- Message ids that a queue has taken.
create table {schema}.taken_ids (
    queue bigint not null,
    id bytea not null,
    until bigint not null,
    primary key (queue, id)
);
create index taken_ids_until on {schema}.taken_ids (until);

-- Requests that were carried out, and their answers, for who asks again.
create table {schema}.requests (id bytea primary key, until bigint not null, answer text);
create index requests_until on {schema}.requests (until);
