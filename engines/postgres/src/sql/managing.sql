-- Queues, exchanges and bindings: declared, looked at, emptied, removed.

-- Makes a queue, or finds it; gives the settings of one that was there.
create function {schema}.declare_queue(with_name text, wanted jsonb) returns text
language plpgsql as $$
declare
    known jsonb;
begin
    perform pg_advisory_xact_lock({schema}.lock_of('queue', with_name));
    select x.settings into known from {schema}.queues x where x.name = with_name;
    if found then
        return known::text;
    end if;
    insert into {schema}.queues (name, settings, messages_max, bytes_max, rejects, ttl, lease,
        deliveries_max, has_dead_letters, dead_exchange, dead_key, priority_max, dedup,
        single_active, auto_delete)
    values (with_name, wanted, (wanted ->> 'messages_max')::bigint,
        (wanted ->> 'bytes_max')::bigint, (wanted ->> 'rejects')::boolean,
        (wanted ->> 'ttl')::bigint, (wanted ->> 'lease')::bigint,
        (wanted ->> 'deliveries_max')::integer, (wanted ->> 'dead_letter') is not null,
        wanted -> 'dead_letter' ->> 'exchange', wanted -> 'dead_letter' ->> 'routing_key',
        (wanted ->> 'priority_max')::smallint, (wanted ->> 'dedup')::bigint,
        (wanted ->> 'single_active')::boolean, (wanted ->> 'auto_delete')::boolean);
    return null;
end $$;

create function {schema}.delete_queue(
    request bytea, with_name text, if_unused boolean, if_empty boolean
) returns bigint language plpgsql as $$
declare
    known text := {schema}.begin_request(request);
    q {schema}.queues;
    next bigint;
    gone bigint;
begin
    if known is not null then
        return known::bigint;
    end if;
    next := {schema}.tend();
    perform pg_advisory_xact_lock({schema}.lock_of('queue', with_name));
    q := {schema}.queue_named(with_name);
    if if_unused and exists (select from {schema}.consumers x where x.queue = q.id) then
        perform {schema}.refuse('in-use', 'queue ' || with_name || ' has consumers');
    end if;
    if if_empty and exists (select from {schema}.messages x where x.queue = q.id) then
        perform {schema}.refuse('in-use', 'queue ' || with_name || ' is not empty');
    end if;
    gone := {schema}.remove_queue(q);
    perform {schema}.end_request(request, gone::text);
    return gone;
end $$;

create function {schema}.purge(request bytea, with_name text) returns bigint
language plpgsql as $$
declare
    known text := {schema}.begin_request(request);
    q {schema}.queues;
    next bigint;
    gone bigint;
    gone_bytes bigint;
begin
    if known is not null then
        return known::bigint;
    end if;
    next := {schema}.tend();
    q := {schema}.queue_named(with_name);
    with gone_ones as (
        delete from {schema}.messages x where x.queue = q.id and x.state in (0, 3)
        returning length(x.body) as bytes
    )
    select count(*), coalesce(sum(bytes), 0) into gone, gone_bytes from gone_ones;
    perform {schema}.tally(q.id, -gone, -gone_bytes, purged_by => gone);
    perform {schema}.end_request(request, gone::text);
    return gone;
end $$;

create function {schema}.pause(with_name text, hold boolean) returns void language plpgsql as $$
declare
    q {schema}.queues;
begin
    q := {schema}.queue_named(with_name);
    update {schema}.queues x set paused = hold where x.id = q.id and x.paused <> hold;
    perform {schema}.ring(q.id);
end $$;

-- Queues by name, or by the beginning of their names.
create function {schema}.views(with_name text, with_prefix text, after integer, at_most integer)
returns table (
    name text, settings text, paused boolean, messages bigint, in_flight bigint, delayed bigint,
    parked bigint, bytes bigint, consumers bigint, published bigint, acked bigint,
    returned bigint, dead bigint, dropped bigint, purged bigint
) language plpgsql as $$
declare
    next bigint := {schema}.tend();
begin
    return query
    select x.name::text, x.settings::text, x.paused, t.messages, s.in_flight, s.delayed, s.parked,
        t.bytes, c.consumers, t.published, t.acked, t.returned, t.dead, t.dropped, t.purged
    from (
        select * from {schema}.queues y
        where y.name = with_name or starts_with(y.name, with_prefix)
        order by y.name limit at_most offset after
    ) x
    cross join lateral (
        select coalesce(sum(y.messages), 0)::bigint as messages,
            coalesce(sum(y.bytes), 0)::bigint as bytes,
            coalesce(sum(y.published), 0)::bigint as published,
            coalesce(sum(y.acked), 0)::bigint as acked,
            coalesce(sum(y.returned), 0)::bigint as returned,
            coalesce(sum(y.dead), 0)::bigint as dead,
            coalesce(sum(y.dropped), 0)::bigint as dropped,
            coalesce(sum(y.purged), 0)::bigint as purged
        from {schema}.tallies y where y.queue = x.id
    ) t
    cross join lateral (
        select count(*) filter (where y.state = 2) as in_flight,
            count(*) filter (where y.state = 1) as delayed,
            count(*) filter (where y.state = 3) as parked
        from {schema}.messages y where y.queue = x.id and y.state <> 0
    ) s
    cross join lateral (
        select count(*) as consumers from {schema}.consumers y where y.queue = x.id
    ) c
    order by x.name;
end $$;

create function {schema}.peek(with_name text, at_most integer) returns table (
    attempts integer, key bytea, level smallint, exchange text, routing_key text,
    message_id bytea, headers bytea, deaths text, published bigint, body bytea
) language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    next bigint := {schema}.tend();
    q {schema}.queues;
begin
    q := {schema}.queue_named(with_name);
    return query select x.attempts, x.key, x.level, x.exchange, x.routing_key, x.message_id,
            x.headers, x.deaths::text, x.published, x.body
        from {schema}.messages x where x.queue = q.id and x.state = 0
        order by x.priority desc, x.place limit at_most;
end $$;

-- Moves messages to another queue, or each to where it died first. They begin anew there.
create function {schema}.redrive(request bytea, from_name text, to_name text, at_most integer)
returns integer language plpgsql as $$
declare
    known text := {schema}.begin_request(request);
    q {schema}.queues;
    fixed {schema}.queues;
    target {schema}.queues;
    m {schema}.messages;
    moved integer := 0;
    next bigint;
begin
    if known is not null then
        return known::integer;
    end if;
    next := {schema}.tend();
    q := {schema}.queue_named(from_name);
    if to_name is not null then
        fixed := {schema}.queue_named(to_name);
        if fixed.id = q.id then
            perform {schema}.refuse('invalid',
                'a queue cannot be redriven to itself; name another');
        end if;
    end if;
    for m in select * from {schema}.messages x where x.queue = q.id and x.state in (0, 3)
        order by x.priority desc, x.place limit at_most for update skip locked
    loop
        target := fixed;
        if to_name is null then
            select * into target from {schema}.queues x where x.name = m.deaths -> 0 ->> 'queue';
        end if;
        continue when target.id is null or target.id = q.id;
        perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', target.name));
        perform {schema}.lock_bounds(target);
        if {schema}.is_full(target, 1, length(m.body)) then
            if moved = 0 and to_name is not null then
                perform {schema}.refuse('full', 'queue ' || to_name || ' is full and refuses');
            end if;
            continue;
        end if;
        continue when not exists (select from {schema}.queues x where x.id = target.id);
        perform {schema}.arrive(target, m, null);
        delete from {schema}.messages x where x.id = m.id;
        perform {schema}.tally(q.id, -1, -length(m.body));
        perform {schema}.free_key(q.id, m.key);
        moved := moved + 1;
    end loop;
    perform {schema}.end_request(request, moved::text);
    return moved;
end $$;

-- Makes an exchange, or finds it; gives the settings of one that was there.
create function {schema}.declare_exchange(
    with_name text, of_kind smallint, durable_ boolean, auto_delete_ boolean, internal_ boolean
) returns {schema}.exchanges language plpgsql as $$
declare
    e {schema}.exchanges;
begin
    perform pg_advisory_xact_lock({schema}.lock_of('topology', ''));
    select * into e from {schema}.exchanges x where x.name = with_name;
    if not found then
        insert into {schema}.exchanges (name, kind, durable, auto_delete, internal)
        values (with_name, of_kind, durable_, auto_delete_, internal_) returning * into e;
    end if;
    return e;
end $$;

create function {schema}.exchange_named(with_name text) returns bigint language plpgsql as $$
declare
    found_id bigint;
begin
    select x.id into found_id from {schema}.exchanges x where x.name = with_name;
    if not found then
        perform {schema}.refuse('not-found', 'there is no exchange ' || with_name);
    end if;
    return found_id;
end $$;

create function {schema}.delete_exchange(request bytea, with_name text, if_unused boolean)
returns void language plpgsql as $$
declare
    gone bigint;
    losing bigint[];
begin
    if {schema}.begin_request(request) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock({schema}.lock_of('topology', ''));
    gone := {schema}.exchange_named(with_name);
    if if_unused and exists (select from {schema}.bindings b where b.exchange = gone) then
        perform {schema}.refuse('in-use', 'exchange ' || with_name || ' has bindings');
    end if;
    delete from {schema}.bindings b where b.exchange = gone;
    with cut as (
        delete from {schema}.bindings b where b.to_exchange = gone returning b.exchange
    )
    select coalesce(array_agg(distinct exchange), '{}') into losing from cut;
    delete from {schema}.exchanges x where x.id = gone;
    perform {schema}.remove_unbound(losing);
end $$;

create function {schema}.bind(
    through text, queue_name text, exchange_name text, with_key text, pattern_ text,
    arguments_ bytea[], match_all_ boolean, undo boolean, request bytea
) returns void language plpgsql as $$
declare
    from_exchange bigint;
    q bigint;
    e bigint;
    there bigint;
    target {schema}.queues;
begin
    if {schema}.begin_request(request) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock({schema}.lock_of('topology', ''));
    from_exchange := {schema}.exchange_named(through);
    if queue_name is not null then
        perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', queue_name));
        target := {schema}.queue_named(queue_name);
        q := target.id;
    else
        e := {schema}.exchange_named(exchange_name);
    end if;
    select b.id into there from {schema}.bindings b
    where b.exchange = from_exchange and b.key = with_key and b.to_queue is not distinct from q
        and b.to_exchange is not distinct from e and b.arguments = arguments_
        and b.match_all = match_all_;
    if undo and there is null then
        perform {schema}.refuse('not-found', 'there is no such binding');
    elsif undo then
        delete from {schema}.bindings b where b.id = there;
        perform {schema}.remove_unbound(array[from_exchange]);
    elsif there is null then
        insert into {schema}.bindings
            (exchange, to_queue, to_exchange, key, pattern, arguments, match_all)
        values (from_exchange, q, e, with_key, pattern_, arguments_, match_all_);
    end if;
end $$;
