-- Versioned entries: the lines of locks, and registers. {schema} is the schema's quoted name,
-- {seed} a number made of it, {channel} the channel on which waiters are woken.

-- One counter for the versions of entries and the tokens of deliveries. It never goes back: what
-- nextval gave stays given when its transaction is rolled back, and after a crash.
create sequence {schema}.versions as bigint maxvalue 9007199254740991 no cycle;

create table {schema}.entries (
    space smallint not null,
    name bytea not null,
    version bigint not null,
    -- Microseconds since 1970 by this server's clock, as all times here.
    written bigint not null,
    expires bigint,
    value bytea not null,
    primary key (space, name)
);
create index entries_expires on {schema}.entries (expires) where expires is not null;
alter table {schema}.entries set (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

create function {schema}.now_us() returns bigint language sql volatile as
$$ select (extract(epoch from clock_timestamp()) * 1000000)::bigint $$;

-- The number of an advisory lock. Two that meet by chance wait for each other, no more.
create function {schema}.lock_of(kind text, what text) returns bigint
language sql immutable parallel safe as
$$ select hashtextextended(kind || ':' || what, {seed}) $$;

-- Locks entries, also those that are not there, in the order of their lock numbers.
create function {schema}.lock_entries(spaces smallint[], names bytea[]) returns void
language plpgsql as $$
declare
    number bigint;
begin
    for number in
        select distinct {schema}.lock_of(k.space::text, encode(k.name, 'hex')) as h
        from unnest(spaces, names) as k(space, name) order by h
    loop
        perform pg_advisory_xact_lock(number);
    end loop;
end $$;

-- Whether locked entries have the versions that are expected; 0: there is none.
create function {schema}.are_as_expected(spaces smallint[], names bytea[], expects bigint[])
returns boolean language plpgsql as $$
declare
    has bigint;
begin
    for i in 1 .. coalesce(array_length(names, 1), 0) loop
        select e.version into has from {schema}.entries e
        where e.space = spaces[i] and e.name = names[i] for update;
        if coalesce(has, 0) <> expects[i] then
            return false;
        end if;
    end loop;
    return true;
end $$;

create function {schema}.look(spaces smallint[], names bytea[])
returns table (version bigint, written bigint, value bytea, moment bigint)
language sql volatile as $$
    select e.version, e.written, e.value, t.moment
    from (select {schema}.now_us() as moment) t
    cross join unnest(spaces, names) with ordinality as k(space, name, place)
    left join {schema}.entries e on e.space = k.space and e.name = k.name
    order by k.place
$$;

-- Writes entries that were locked and compared. Acts: 0 stays, 1 is written, 2 goes.
create function {schema}.write_entries(
    spaces smallint[], names bytea[], acts smallint[], vals bytea[], lasts bigint[],
    fresh bigint, moment bigint
) returns void language plpgsql as $$
begin
    for i in 1 .. coalesce(array_length(names, 1), 0) loop
        if acts[i] = 1 then
            insert into {schema}.entries as e (space, name, version, written, expires, value)
            values (spaces[i], names[i], fresh, moment, moment + lasts[i], vals[i])
            on conflict (space, name) do update set version = excluded.version,
                written = excluded.written, expires = excluded.expires, value = excluded.value;
        elsif acts[i] = 2 then
            delete from {schema}.entries e where e.space = spaces[i] and e.name = names[i];
        end if;
    end loop;
end $$;

-- Wakes who waits, right after the transaction that they wait for. Those who notify commit one
-- after the other, so this one must not wait for the disk: what it tells is there already. A swap
-- that was in vain says so on its connection, by its number, and wakes nobody.
create function {schema}.ring_all(bells text[], number bigint) returns void language plpgsql as $$
begin
    if current_setting('leasehold.in_vain', true) = number::text then
        return;
    end if;
    perform set_config('synchronous_commit', 'off', true);
    perform pg_notify('{channel}', x.bell) from unnest(bells) x(bell);
end $$;

-- Waits, for so many milliseconds at most, until nobody else is at it who comes to a line; until
-- the end of the session, or `end_turn`. It decides nothing.
create function {schema}.begin_turn(name bytea, at_most integer) returns boolean
language plpgsql as $$
begin
    perform set_config('lock_timeout', at_most || 'ms', true);
    perform pg_advisory_lock({schema}.lock_of('turn', encode(name, 'hex')));
    return true;
exception when lock_not_available then
    return false;
end $$;

create function {schema}.end_turn(name bytea) returns boolean language sql as $$
    select pg_advisory_unlock({schema}.lock_of('turn', encode(name, 'hex')))
$$;

-- Compares and swaps entries, all or none. Gives one row with `done` and the new version, or how
-- all of them are, also when it is too late. What may be lost with the machine's power (`lazy`)
-- does not wait for the disk.
create function {schema}.swap(
    spaces smallint[], names bytea[], expects bigint[], acts smallint[], vals bytea[],
    lasts bigint[], in_time bigint, number bigint, lazy boolean
) returns table (version bigint, written bigint, value bytea, moment bigint, done boolean)
language plpgsql as $$
declare
    fresh bigint;
    at_us bigint;
begin
    perform {schema}.lock_entries(spaces, names);
    if not {schema}.are_as_expected(spaces, names, expects)
        or {schema}.now_us() >= in_time
    then
        perform set_config('leasehold.in_vain', number::text, false);
        return query select l.version, l.written, l.value, l.moment, false
            from {schema}.look(spaces, names) l;
        return;
    end if;
    if lazy then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    fresh := nextval('{schema}.versions');
    at_us := {schema}.now_us();
    perform {schema}.write_entries(spaces, names, acts, vals, lasts, fresh, at_us);
    if random() < 0.02 then
        delete from {schema}.entries e where (e.space, e.name) in (
            select x.space, x.name from {schema}.entries x
            where x.expires < at_us - 60000000 limit 100 for update skip locked
        );
    end if;
    return query select fresh, at_us, null::bytea, at_us, true;
end $$;

-- A contender of a line, with what only the store knew when the line was written. It stands there
-- as 0, and who writes the line again must put it in.
create function {schema}.resolved(one jsonb, version bigint, written bigint) returns jsonb
language sql immutable parallel safe as $$
    select one || jsonb_build_object(
        'token', coalesce(nullif(one->'token', '0'), to_jsonb(version)),
        'joined', coalesce(nullif(one->'joined', '0'), to_jsonb(written)),
        'renewed', coalesce(nullif(one->'renewed', '0'), to_jsonb(written)),
        'session_renewed', coalesce(nullif(one->'session_renewed', '0'), to_jsonb(written))
    ) || case when one->'granted' = '0' then jsonb_build_object('granted', written)
        else '{}' end
$$;

-- Whether a contender may come to the end of a line without a look at it: somebody is there, there
-- is room, it is not there itself, and those who want permits mean the same semaphore.
create function {schema}.may_come(line jsonb, comer jsonb, line_max integer) returns boolean
language sql immutable parallel safe as $$
    select jsonb_array_length(line) between 1 and line_max - 1 and not exists (
        select from jsonb_array_elements(line) as l(one)
        where one->'id' = comer->'id' or one->'mode'->1 <> comer->'mode'->1
    )
$$;

-- Puts a contender at the end of a lock's line, whatever the line's version is; those who come wait
-- for each other in the order in which they asked. Gives the line as it is then with `done`, or as
-- it was if the contender may not come in this way.
create function {schema}.append(
    lock_name bytea, contender text, lasts bigint, line_max integer
) returns table (version bigint, written bigint, value bytea, moment bigint, done boolean)
language plpgsql as $$
declare
    old {schema}.entries;
    old_line text;
    line jsonb;
    comer jsonb;
    fresh bigint;
    at_us bigint;
    new_value bytea;
begin
    perform {schema}.lock_entries(array[0::smallint], array[lock_name]);
    select e.* into old from {schema}.entries e
    where e.space = 0 and e.name = lock_name for update;
    old_line := convert_from(old.value, 'UTF8');
    -- jsonb has no text with a zero byte.
    if strpos(old_line || contender, E'\\u0000') = 0 then
        line := old_line::jsonb;
        comer := contender::jsonb;
    end if;
    if {schema}.may_come(line, comer, line_max) is not true then
        return query select l.version, l.written, l.value, l.moment, false
            from {schema}.look(array[0::smallint], array[lock_name]) l;
        return;
    end if;
    fresh := nextval('{schema}.versions');
    at_us := {schema}.now_us();
    select convert_to((jsonb_agg(
        {schema}.resolved(l.one, old.version, old.written) order by l.place
    ) || comer)::text, 'UTF8') into new_value
    from jsonb_array_elements(line) with ordinality as l(one, place);
    update {schema}.entries e set version = fresh, written = at_us, value = new_value,
        -- Without an end if one of them has none.
        expires = case when old.expires + lasts is not null
            then greatest(old.expires, at_us + lasts) end
    where e.space = 0 and e.name = lock_name;
    return query select fresh, at_us, new_value, at_us, true;
end $$;
