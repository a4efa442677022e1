-- What the engine calls: each is one round trip and one transaction.

create type {schema}.published as (queues integer, duplicates integer, refusal text, wrong text);

create function {schema}.refused(refusal text, wrong text) returns {schema}.published
language sql immutable as $$ select 0, 0, refusal, wrong $$;

-- A queue that is named is rung for by the caller, after the transaction.
create function {schema}.publish_one(
    through text, with_key text, mandatory boolean, body bytea, level smallint, okey bytea,
    mid bytea, ttl bigint, delay bigint, due bigint, headers bytea, tokens bytea[]
) returns {schema}.published language plpgsql as $$
declare
    now_at bigint;
    due_at bigint;
    targets bigint[];
    q {schema}.queues;
    arrivals {schema}.queues[] := '{}';
    duplicates integer := 0;
    lives bigint;
    place bigint;
    internal_ boolean;
begin
    if through is null then
        perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', with_key));
        select array_agg(x.id) into targets from {schema}.queues x where x.name = with_key;
        if targets is null then
            return {schema}.refused('not-found',
                'there is no queue ' || with_key || '; declare it first');
        end if;
    else
        select e.internal into internal_ from {schema}.exchanges e where e.name = through;
        if internal_ then
            return {schema}.refused('invalid', 'exchange ' || through
                || ' is internal; only other exchanges may publish to it');
        end if;
        targets := {schema}.route(through, with_key, tokens);
        if targets is null then
            return {schema}.refused('not-found', 'there is no exchange ' || through);
        end if;
        for q in select * from {schema}.queues x where x.id = any (targets) order by x.name loop
            perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', q.name));
        end loop;
    end if;
    if mandatory and cardinality(targets) = 0 then
        return {schema}.refused('unroutable',
            'no queue takes the message; bind one, or do not demand it');
    end if;
    now_at := {schema}.now_us();
    for q in select * from {schema}.queues x where x.id = any (targets) order by x.id loop
        if q.dedup is not null and mid is not null then
            perform pg_advisory_xact_lock(
                {schema}.lock_of('id', q.id || ':' || encode(mid, 'hex')));
            if exists (select from {schema}.taken_ids i
                where i.queue = q.id and i.id = mid and i.until > now_at)
            then
                duplicates := duplicates + 1;
                continue;
            end if;
        end if;
        perform {schema}.lock_bounds(q);
        if {schema}.is_full(q, 1, length(body)) then
            return {schema}.refused('full',
                'queue ' || q.name || ' is full and refuses; try again later');
        end if;
        arrivals := array_append(arrivals, q);
    end loop;
    now_at := {schema}.now_us();
    due_at := coalesce(now_at + delay, due);
    if due_at <= now_at then
        due_at := null;
    end if;
    foreach q in array arrivals loop
        if q.dedup is not null and mid is not null then
            insert into {schema}.taken_ids values (q.id, mid, now_at + q.dedup)
            on conflict (queue, id) do update set until = excluded.until;
        end if;
        lives := least(ttl, q.ttl);
        place := nextval('{schema}.places');
        insert into {schema}.messages (id, queue, state, priority, place, key, at, expires, level,
            published, exchange, routing_key, message_id, headers, body)
        values (place, q.id, case when due_at is null then 0 else 1 end,
            least(level, q.priority_max), place, okey, due_at,
            coalesce(due_at, now_at) + lives, level, now_at, coalesce(through, ''), with_key, mid,
            headers, body);
        perform {schema}.tally(q.id, 1, length(body), published_by => 1);
        if due_at is not null then
            perform {schema}.tell_time(due_at - now_at);
        elsif through is not null then
            perform {schema}.ring(q.id);
        end if;
        if lives is not null then
            perform {schema}.tell_time(coalesce(due_at, now_at) + lives - now_at);
        end if;
        perform {schema}.drop_oldest(q);
    end loop;
    return row(cardinality(arrivals), duplicates, null::text, null::text)::{schema}.published;
end $$;

-- Remembers requests of messages that one queue takes each; false, and nothing, if one is known.
create function {schema}.begin_plain(requests bytea[]) returns boolean language plpgsql as $$
declare
    begun bytea[];
begin
    with new as (
        insert into {schema}.requests (id, until, answer)
        select x.id, {schema}.now_us() + 120000000, '1 0'
        from unnest(requests) with ordinality x(id, i) order by x.i
        on conflict (id) do nothing returning id
    )
    select array_agg(id) into begun from new;
    if cardinality(begun) = cardinality(requests) then
        return true;
    end if;
    delete from {schema}.requests r where r.id = any (begun);
    return false;
end $$;

-- Puts messages into their queues, which are locked, have no bounds and look at no message id.
create function {schema}.put_plain(
    into_queues bigint[], keys text[], bodies bytea[], levels smallint[], okeys bytea[],
    mids bytea[], ttls bigint[], delays bigint[], dues bigint[], headers bytea[]
) returns void language plpgsql as $$
declare
    now_at bigint := {schema}.now_us();
    within bigint;
begin
    -- The places are in the order of the messages, as they are taken after the sort.
    with put as (
        insert into {schema}.messages (id, queue, state, priority, place, key, at, expires, level,
            published, exchange, routing_key, message_id, headers, body)
        select p.place, p.queue, case when p.at is null then 0 else 1 end, p.priority, p.place,
            p.okey, p.at, coalesce(p.at, now_at) + p.lives, p.level, now_at, '', p.key, p.mid,
            p.headers, p.body
        from (
            select nextval('{schema}.places') as place, o.* from (
                select q.id as queue, least(x.level, q.priority_max) as priority, x.level, x.okey,
                    nullif(greatest(coalesce(now_at + x.delay, x.due), now_at), now_at) as at,
                    least(x.ttl, q.ttl) as lives, x.key, x.mid, x.headers, x.body
                from unnest(into_queues, keys, bodies, levels, okeys, mids, ttls, delays, dues,
                    headers) with ordinality
                    x(queue, key, body, level, okey, mid, ttl, delay, due, headers, i)
                join {schema}.queues q on q.id = x.queue order by x.i
            ) o
        ) p returning at, expires
    )
    select least(min(p.at), min(p.expires)) - now_at into within from put p;
    perform {schema}.tally(x.queue, count(*), sum(length(x.body))::bigint,
        published_by => count(*))
    from unnest(into_queues, bodies) x(queue, body) group by x.queue;
    if within is not null then
        perform {schema}.tell_time(within);
    end if;
end $$;

-- Publishes messages, each by itself. Those in a row that reach one queue each, which need not be
-- asked whether it takes them, are put in together. `lazy`: the confirm does not wait for the disk.
create function {schema}.publish(
    requests bytea[], through text[], keys text[], mandatory boolean[], bodies bytea[],
    levels smallint[], okeys bytea[], mids bytea[], ttls bigint[], delays bigint[], dues bigint[],
    headers bytea[], token_of integer[], tokens bytea[], lazy boolean
) returns table (queues integer, duplicates integer, refusal text, wrong text)
language plpgsql as $$
declare
    known text;
    p {schema}.published;
    n integer := coalesce(array_length(bodies, 1), 0);
    plain bigint[];
    last integer := 0;
    tallies integer := 0;
    busy bigint;
    i integer := 1;
begin
    if lazy then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if n > 1 then
        perform pg_advisory_xact_lock_shared({schema}.lock_of('queue', x.key)) from (
            select distinct y.key collate "C" as key from unnest(keys, through) y(key, through)
            where y.through is null order by 1
        ) x;
        select array_agg(q.id order by x.i) into plain
        from unnest(keys, through, mids) with ordinality x(key, through, mid, i)
        left join {schema}.queues q on x.through is null and q.name = x.key
            and q.messages_max is null and q.bytes_max is null
            and (q.dedup is null or x.mid is null);
    end if;
    while i <= n loop
        -- The last one in a row; what was tried together and is known goes one by one.
        if last < i and plain[i] is not null then
            last := i;
            while last < n and plain[last + 1] is not null loop
                last := last + 1;
            end loop;
            if last > i and {schema}.begin_plain(requests[i:last]) then
                perform {schema}.put_plain(plain[i:last], keys[i:last], bodies[i:last],
                    levels[i:last], okeys[i:last], mids[i:last], ttls[i:last],
                    delays[i:last], dues[i:last], headers[i:last]);
                return query select 1, 0, null::text, null::text from generate_series(i, last);
                i := last + 1;
                continue;
            end if;
        end if;
        known := {schema}.begin_request(requests[i]);
        if known is not null then
            if known !~ '^[0-9]+ [0-9]+$' then
                p := {schema}.refused('spent', 'the request id was used for another request');
            else
                p := row(split_part(known, ' ', 1)::integer, split_part(known, ' ', 2)::integer,
                    null::text, null::text)::{schema}.published;
            end if;
        else
            p := {schema}.publish_one(through[i], keys[i], mandatory[i], bodies[i], levels[i],
                okeys[i], mids[i], ttls[i], delays[i], dues[i], headers[i],
                coalesce((select array_agg(x.token) from unnest(token_of, tokens) x(of_, token)
                    where x.of_ = i), '{}'));
            tallies := tallies + 1;
            if p.refusal is null then
                perform {schema}.end_request(requests[i], p.queues || ' ' || p.duplicates);
            else
                delete from {schema}.requests r where r.id = requests[i];
            end if;
        end if;
        return query select p.queues, p.duplicates, p.refusal, p.wrong;
        i := i + 1;
    end loop;
    if tallies > 16 then
        for busy in select x.id from {schema}.queues x
            where x.name = any (select k from unnest(keys, through) y(k, t) where t is null)
        loop
            perform {schema}.roll(busy);
        end loop;
    end if;
end $$;

create function {schema}.queue_named(with_name text) returns {schema}.queues
language plpgsql as $$
declare
    q {schema}.queues;
begin
    select * into q from {schema}.queues x where x.name = with_name;
    if not found then
        perform {schema}.refuse('not-found',
            'there is no queue ' || with_name || '; declare it first');
    end if;
    return q;
end $$;

-- Takes messages. The last row has no id: it says when to look again, and whether something was
-- there that another transaction has in its hands.
create function {schema}.take(
    from_queue text, for_session bigint, session_ttl bigint, by_consumer bigint, at_most integer,
    own_lease bigint, no_ack boolean, this_call bytea, from_home bigint, again boolean
) returns table (
    id bigint, token bigint, attempts integer, key bytea, level smallint, exchange text,
    routing_key text, message_id bytea, headers bytea, deaths text, published bigint, body bytea,
    queue bigint, wake bigint, contended boolean, leased bigint
) language plpgsql
-- The index has the order of delivery; a plan that sorts a whole queue must never be chosen.
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    q {schema}.queues;
    c {schema}.consumers;
    m record;
    wanted integer := at_most;
    taken bigint[] := '{}';
    moved integer;
    next bigint := {schema}.tend();
    ends bigint;
    total bigint := 0;
begin
    q := {schema}.queue_named(from_queue);
    -- A call that comes after it was given back takes nothing.
    perform pg_advisory_xact_lock_shared({schema}.lock_of('call', encode(this_call, 'hex')));
    if exists (select from {schema}.requests r where r.id = this_call) then
        perform {schema}.refuse('cancelled', 'nobody waits for it any more');
    end if;
    if by_consumer is not null then
        select * into c from {schema}.consumers x where x.handle = by_consumer;
        if not found or c.queue <> q.id then
            perform {schema}.refuse('no-session',
                'the consumer has ended with its session; consume anew');
        end if;
    elsif exists (select from {schema}.consumers x where x.queue = q.id and x.exclusive) then
        perform {schema}.refuse('in-use', 'queue ' || q.name || ' has an exclusive consumer');
    end if;
    if again then
        select coalesce(array_agg(x.id), '{}') into taken from {schema}.messages x
        where x.session = for_session and x.state = 2 and x.call = this_call;
        wanted := case when cardinality(taken) > 0 then 0 else wanted end;
    end if;
    if by_consumer is not null and not no_ack then
        select least(wanted, c.prefetch - count(*)) into wanted from {schema}.messages x
        where x.session = for_session and x.state = 2 and x.consumer = by_consumer;
    end if;
    if q.paused or (q.single_active and exists (select from {schema}.consumers x
        where x.queue = q.id and (by_consumer is null or x.id < c.id)))
    then
        wanted := 0;
    end if;
    if wanted > 0 and not no_ack then
        insert into {schema}.owners values (for_session, {schema}.now_us() + session_ttl)
        on conflict (session) do nothing;
        if found and session_ttl is not null then
            perform {schema}.tell_time(session_ttl);
        end if;
    end if;
    ends := {schema}.now_us() + coalesce(own_lease, q.lease);
    while cardinality(taken) < wanted loop
        moved := 0;
        for m in select x.id, x.key, length(x.body) as bytes from {schema}.messages x
            where x.queue = q.id and x.state = 0
            order by x.priority desc, x.place limit wanted - cardinality(taken)
            for update skip locked
        loop
            if m.key is not null then
                continue when not pg_try_advisory_xact_lock({schema}.lock_key(q.id, m.key));
                if exists (select from {schema}.messages x
                    where x.queue = q.id and x.key = m.key and x.state = 2)
                then
                    update {schema}.messages x set state = 3 where x.id = m.id;
                    moved := moved + 1;
                    continue;
                end if;
            end if;
            update {schema}.messages x set state = 2, at = ends,
                token = nextval('{schema}.versions'), session = for_session,
                consumer = by_consumer, call = this_call, home = from_home
            where x.id = m.id;
            taken := taken || m.id;
            moved := moved + 1;
            total := total + m.bytes;
            -- An answer of many large bodies would not fit.
            exit when total > 33554432;
        end loop;
        exit when moved = 0 or total > 33554432;
    end loop;
    return query select x.id, x.token, x.attempts, x.key, x.level, x.exchange, x.routing_key,
            x.message_id, x.headers, x.deaths::text, x.published, x.body, q.id, null::bigint, false,
            null::bigint
        from {schema}.messages x where x.id = any (taken) order by x.token;
    if no_ack and cardinality(taken) > 0 then
        for m in delete from {schema}.messages x where x.id = any (taken)
            returning x.key, length(x.body) as bytes
        loop
            perform {schema}.tally(q.id, -1, -m.bytes, acked_by => 1);
            perform {schema}.free_key(q.id, m.key);
        end loop;
    end if;
    return query select null::bigint, null::bigint, null::integer, null::bytea, null::smallint,
        null::text, null::text, null::bytea, null::bytea, null::text, null::bigint, null::bytea,
        q.id, least(next, coalesce(own_lease, q.lease)),
        cardinality(taken) < wanted and exists (
            select from {schema}.messages x where x.queue = q.id and x.state = 0),
        coalesce(own_lease, q.lease);
end $$;
