-- What happens to messages. Rows are locked first, then ordering keys, then bounds.

create function {schema}.refuse(kind text, wrong text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'LH000', message = wrong, detail = kind;
end $$;

-- Begins a request that is carried out once: null when it is new, else its answer.
create function {schema}.begin_request(request bytea) returns text language plpgsql as $$
declare
    known text;
begin
    insert into {schema}.requests (id, until) values (request, {schema}.now_us() + 120000000)
    on conflict (id) do nothing;
    if found then
        return null;
    end if;
    select coalesce(r.answer, '') into known from {schema}.requests r where r.id = request;
    return coalesce(known, '');
end $$;

create function {schema}.end_request(request bytea, said text) returns void language sql as $$
    update {schema}.requests set answer = said where id = request;
$$;

-- Adds the rows of a queue's sums up to one, as far as nobody else does.
create function {schema}.roll(of_queue bigint) returns void language sql as $$
    with gone as (
        delete from {schema}.tallies t where t.ctid in (
            select x.ctid from {schema}.tallies x where x.queue = of_queue
            limit 5000 for update skip locked
        ) returning t.*
    )
    insert into {schema}.tallies
    select of_queue, sum(messages), sum(bytes), sum(published), sum(acked), sum(returned),
        sum(dead), sum(dropped), sum(purged)
    from gone having count(*) > 0;
$$;

create function {schema}.tally(
    of_queue bigint, messages_by bigint, bytes_by bigint, published_by bigint = 0,
    acked_by bigint = 0, returned_by bigint = 0, dead_by bigint = 0, dropped_by bigint = 0,
    purged_by bigint = 0
) returns void language plpgsql as $$
begin
    insert into {schema}.tallies values (of_queue, messages_by, bytes_by, published_by, acked_by,
        returned_by, dead_by, dropped_by, purged_by);
    if random() < 0.01 then
        perform {schema}.roll(of_queue);
    end if;
end $$;

create function {schema}.ring(of_queue bigint) returns void language sql as $$
    select pg_notify('{channel}', 'q' || of_queue);
$$;

-- Tells all clocks that something is due in so many microseconds.
create function {schema}.tell_time(within bigint) returns void language sql as $$
    select pg_notify('{channel}', 't' || within);
$$;

-- Whether a locked queue that refuses has no room for so much more.
create function {schema}.is_full(q {schema}.queues, more bigint, more_bytes bigint)
returns boolean language plpgsql as $$
declare
    has bigint;
    has_bytes bigint;
begin
    if not q.rejects or (q.messages_max is null and q.bytes_max is null) then
        return false;
    end if;
    select coalesce(sum(messages), 0), coalesce(sum(bytes), 0) into has, has_bytes
    from {schema}.tallies where queue = q.id;
    return coalesce(has + more > q.messages_max, false)
        or coalesce(has_bytes + more_bytes > q.bytes_max, false);
end $$;

create function {schema}.lock_bounds(q {schema}.queues) returns void language plpgsql as $$
begin
    if q.messages_max is not null or q.bytes_max is not null then
        perform pg_advisory_xact_lock({schema}.lock_of('bounds', q.id::text));
    end if;
end $$;

create function {schema}.lock_key(of_queue bigint, of_key bytea) returns bigint
language sql immutable as $$
    select {schema}.lock_of('key', of_queue || ':' || encode(of_key, 'hex'));
$$;

-- A message of an ordering key is not in flight or not there any more: the next one may go.
create function {schema}.free_key(of_queue bigint, of_key bytea) returns void
language plpgsql as $$
begin
    if of_key is null then
        return;
    end if;
    perform pg_advisory_xact_lock({schema}.lock_key(of_queue, of_key));
    if exists (select from {schema}.messages m
        where m.queue = of_queue and m.key = of_key and m.state = 2) then
        return;
    end if;
    update {schema}.messages set state = 0 where id = (
        select m.id from {schema}.messages m
        where m.queue = of_queue and m.key = of_key and m.state = 3
        order by m.priority desc, m.place limit 1 for update skip locked
    );
    if found then
        perform {schema}.ring(of_queue);
    end if;
end $$;

-- The queues that a message reaches through an exchange; null: there is no such exchange.
-- Exchanges that lead to each other are visited once each.
create function {schema}.route(through text, with_key text, tokens bytea[]) returns bigint[]
language plpgsql stable as $$
declare
    words text := case when with_key = '' then '' else '.' || with_key end;
    first bigint;
    reached bigint[];
begin
    select e.id into first from {schema}.exchanges e where e.name = through;
    if first is null then
        return null;
    end if;
    with recursive matching as (
        select b.exchange, b.to_queue, b.to_exchange
        from {schema}.bindings b join {schema}.exchanges e on e.id = b.exchange
        where case e.kind
            when 0 then b.key = with_key
            when 1 then true
            when 2 then words ~ b.pattern
            when 3 then case when b.match_all then b.arguments <@ tokens
                else b.arguments && tokens end
        end
    ), visited (exchange) as (
        select first
        union
        select m.to_exchange from visited v join matching m on m.exchange = v.exchange
        where m.to_exchange is not null
    )
    select coalesce(array_agg(distinct m.to_queue order by m.to_queue), '{}') into reached
    from visited v join matching m on m.exchange = v.exchange where m.to_queue is not null;
    return reached;
end $$;

-- A message that the caller has locked is dead: to the dead letters, or dropped. A queue that it
-- died in before, without anybody rejecting it on the way, is left out: it would go round for ever.
create function {schema}.die(m {schema}.messages, q {schema}.queues, reason text) returns void
language plpgsql as $$
declare
    targets bigint[] := '{}';
    was_rejected boolean;
    t {schema}.queues;
    other jsonb;
    count_before integer := 0;
    first_at bigint := {schema}.now_us();
    told jsonb;
    kept boolean := false;
begin
    if q.has_dead_letters then
        if q.dead_exchange is null then
            select coalesce(array_agg(x.id), '{}') into targets from {schema}.queues x
            where x.name = coalesce(q.dead_key, m.routing_key);
        else
            targets := coalesce({schema}.route(q.dead_exchange,
                coalesce(q.dead_key, m.routing_key), '{}'), '{}');
        end if;
    end if;
    was_rejected := reason = 'rejected' or exists (
        select from jsonb_array_elements(coalesce(m.deaths, '[]')) d
        where d ->> 'reason' = 'rejected');
    select (d ->> 'count')::integer, (d ->> 'first')::bigint into count_before, first_at
    from jsonb_array_elements(coalesce(m.deaths, '[]')) d
    where d ->> 'queue' = q.name and d ->> 'reason' = reason;
    select coalesce(jsonb_agg(d.death order by d.place), '[]') into other
    from jsonb_array_elements(coalesce(m.deaths, '[]')) with ordinality d (death, place)
    where not (d.death ->> 'queue' = q.name and d.death ->> 'reason' = reason)
        and d.place > jsonb_array_length(m.deaths) - 15;
    told := other || jsonb_build_object('queue', q.name, 'reason', reason,
        'count', coalesce(count_before, 0) + 1, 'first', coalesce(first_at, {schema}.now_us()));
    for t in select * from {schema}.queues x where x.id = any (targets) order by x.id loop
        continue when not was_rejected and (t.id = q.id or exists (
            select from jsonb_array_elements(other) d where d ->> 'queue' = t.name));
        perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', t.name));
        perform {schema}.lock_bounds(t);
        continue when {schema}.is_full(t, 1, length(m.body))
            or not exists (select from {schema}.queues x where x.id = t.id);
        perform {schema}.arrive(t, m, told);
        kept := true;
    end loop;
    delete from {schema}.messages x where x.id = m.id;
    perform {schema}.tally(q.id, -1, -length(m.body), dead_by => kept::integer,
        dropped_by => (not kept)::integer);
    perform {schema}.free_key(q.id, m.key);
end $$;

-- A copy of a message comes into another queue and begins anew there.
create function {schema}.arrive(t {schema}.queues, m {schema}.messages, told jsonb) returns void
language plpgsql as $$
declare
    now_at bigint := {schema}.now_us();
begin
    insert into {schema}.messages (id, queue, state, priority, place, key, expires, level,
        published, exchange, routing_key, message_id, headers, deaths, body)
    select p.place, t.id, 0, least(m.priority, t.priority_max), p.place, m.key, now_at + t.ttl,
        m.level, m.published, m.exchange, m.routing_key, m.message_id, m.headers, told, m.body
    from (select nextval('{schema}.places') as place) p;
    perform {schema}.tally(t.id, 1, length(m.body), published_by => 1);
    perform {schema}.ring(t.id);
    if t.ttl is not null then
        perform {schema}.tell_time(t.ttl);
    end if;
    perform {schema}.drop_oldest(t);
end $$;

-- Drops what is too much in a queue that drops the oldest.
create function {schema}.drop_oldest(q {schema}.queues) returns void language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    has bigint;
    has_bytes bigint;
    m {schema}.messages;
begin
    if q.rejects or (q.messages_max is null and q.bytes_max is null) then
        return;
    end if;
    loop
        select sum(messages), sum(bytes) into has, has_bytes
        from {schema}.tallies where queue = q.id;
        exit when not coalesce(has > q.messages_max, false)
            and not coalesce(has_bytes > q.bytes_max, false);
        select * into m from {schema}.messages x where x.queue = q.id and x.state = 0
        order by x.priority desc, x.place limit 1 for update skip locked;
        if not found then
            select * into m from {schema}.messages x where x.queue = q.id and x.state = 3
            order by x.place limit 1 for update skip locked;
        end if;
        exit when not found;
        perform {schema}.die(m, q, 'overflow');
    end loop;
end $$;

-- A delivery that the caller has locked failed: again, later, or never.
create function {schema}.fail(m {schema}.messages, delay bigint) returns void
language plpgsql as $$
declare
    q {schema}.queues;
begin
    select * into q from {schema}.queues x where x.id = m.queue;
    if not found then
        delete from {schema}.messages x where x.id = m.id;
        return;
    end if;
    perform {schema}.tally(q.id, 0, 0, returned_by => 1);
    if m.attempts + 1 >= q.deliveries_max then
        perform {schema}.die(m, q, 'deliveries');
        perform {schema}.ring(q.id);
        return;
    end if;
    update {schema}.messages x set state = case when delay > 0 then 1 else 0 end,
        at = case when delay > 0 then {schema}.now_us() + delay end,
        attempts = x.attempts + 1, session = null, consumer = null, call = null, home = null
    where x.id = m.id;
    if delay > 0 then
        perform {schema}.tell_time(delay);
    end if;
    perform {schema}.free_key(q.id, m.key);
    perform {schema}.ring(q.id);
end $$;

-- Removes a queue that the caller has locked by its name, with all that belongs to it.
create function {schema}.remove_queue(q {schema}.queues) returns bigint language plpgsql as $$
declare
    gone bigint;
    losing bigint[];
begin
    select coalesce(array_agg(distinct b.exchange), '{}') into losing
    from {schema}.bindings b where b.to_queue = q.id;
    delete from {schema}.bindings b where b.to_queue = q.id;
    delete from {schema}.consumers c where c.queue = q.id;
    delete from {schema}.queues x where x.id = q.id;
    delete from {schema}.messages m where m.queue = q.id;
    get diagnostics gone = row_count;
    delete from {schema}.taken_ids i where i.queue = q.id;
    delete from {schema}.tallies t where t.queue = q.id;
    perform {schema}.remove_unbound(losing);
    perform {schema}.ring(q.id);
    return gone;
end $$;

-- Removes those of the exchanges that go with their last binding, and what falls with them.
create function {schema}.remove_unbound(losing bigint[]) returns void language plpgsql as $$
declare
    gone bigint[];
begin
    while coalesce(array_length(losing, 1), 0) > 0 loop
        delete from {schema}.exchanges e where e.id = any (losing) and e.auto_delete
            and not exists (select from {schema}.bindings b where b.exchange = e.id);
        select coalesce(array_agg(x), '{}') into gone from unnest(losing) x
        where not exists (select from {schema}.exchanges e where e.id = x);
        with cut as (
            delete from {schema}.bindings b where b.to_exchange = any (gone) returning b.exchange
        )
        select coalesce(array_agg(distinct exchange), '{}') into losing from cut;
    end loop;
end $$;

-- A consumer has gone.
create function {schema}.drop_consumer(c {schema}.consumers) returns void language plpgsql as $$
declare
    q {schema}.queues;
begin
    delete from {schema}.consumers x where x.id = c.id;
    select * into q from {schema}.queues x where x.id = c.queue;
    if not found then
        return;
    end if;
    perform {schema}.ring(q.id);
    if q.auto_delete then
        perform pg_advisory_xact_lock({schema}.lock_of('queue', q.name));
        if not exists (select from {schema}.consumers x where x.queue = q.id) then
            perform {schema}.remove_queue(q);
        end if;
    end if;
end $$;

-- A session has ended: what it had in hand goes back.
create function {schema}.end_session(of_session bigint) returns void language plpgsql as $$
declare
    m {schema}.messages;
    c {schema}.consumers;
begin
    for c in select * from {schema}.consumers x where x.session = of_session order by x.id loop
        perform {schema}.drop_consumer(c);
    end loop;
    for m in select * from {schema}.messages x where x.session = of_session and x.state = 2
        order by x.id for update
    loop
        perform {schema}.fail(m, 0);
    end loop;
    delete from {schema}.owners o where o.session = of_session;
end $$;

-- Does what is due. Gives the microseconds until it should be asked again; null: there is nothing.
create function {schema}.tend() returns bigint language plpgsql as $$
declare
    t bigint := {schema}.now_us();
    o {schema}.owners;
    m {schema}.messages;
    q {schema}.queues;
    next bigint;
begin
    for o in select * from {schema}.owners x where x.until <= t
        order by x.until limit 100 for update skip locked
    loop
        perform {schema}.end_session(o.session);
    end loop;
    for m in select * from {schema}.messages x where x.state = 2 and x.at <= t
        order by x.at limit 500 for update skip locked
    loop
        perform {schema}.fail(m, 0);
    end loop;
    for m in select * from {schema}.messages x where x.state = 1 and x.at <= t
        order by x.at, x.place limit 500 for update skip locked
    loop
        update {schema}.messages x set state = 0, at = null,
            place = case when x.attempts = 0 then nextval('{schema}.places') else x.place end
        where x.id = m.id;
        perform {schema}.ring(m.queue);
    end loop;
    for m in select * from {schema}.messages x where x.expires <= t and x.state <> 2
        order by x.expires limit 500 for update skip locked
    loop
        select * into q from {schema}.queues x where x.id = m.queue;
        if found then
            perform {schema}.die(m, q, 'expired');
        else
            delete from {schema}.messages x where x.id = m.id;
        end if;
    end loop;
    if random() < 0.02 then
        perform {schema}.tidy(t);
    end if;
    next := least(
        (select min(x.at) from {schema}.messages x where x.state = 1 and x.at is not null),
        (select min(x.at) from {schema}.messages x where x.state = 2 and x.at is not null),
        (select min(x.expires) from {schema}.messages x
            where x.expires is not null and x.state <> 2),
        (select min(x.until) from {schema}.owners x where x.until is not null));
    -- What somebody else is at work on is due and not ours.
    return case when next is not null then greatest(next - {schema}.now_us(), 20000) end;
end $$;

-- Removes what nobody asks for any more.
create function {schema}.tidy(t bigint) returns void language sql as $$
    delete from {schema}.requests r where r.id in (
        select x.id from {schema}.requests x where x.until < t
        order by x.until limit 5000 for update skip locked);
    delete from {schema}.taken_ids i where (i.queue, i.id) in (
        select x.queue, x.id from {schema}.taken_ids x where x.until < t
        order by x.until limit 5000 for update skip locked);
$$;
