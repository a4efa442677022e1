// Redisson's locks and ShedLock over Jedis.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import net.javacrumbs.shedlock.core.LockConfiguration;
import net.javacrumbs.shedlock.provider.redis.jedis4.JedisLockProvider;
import org.redisson.Redisson;
import org.redisson.api.RLock;
import org.redisson.api.RPermitExpirableSemaphore;
import org.redisson.api.RReadWriteLock;
import org.redisson.api.RSemaphore;
import org.redisson.api.RedissonClient;
import org.redisson.config.Config;
import redis.clients.jedis.JedisPool;

public class Locks {
    private static final int PORT = Integer.parseInt(System.getenv("RESP_PORT"));
    private static final BufferedReader ANSWERS =
        new BufferedReader(new InputStreamReader(System.in));
    // Longer than any of these cases.
    private static final long LONG = 300;

    private interface Doing {
        void run() throws Exception;
    }

    private static void ok(String name) {
        System.out.println("ok " + name);
        System.out.flush();
    }

    private static void check(boolean so, String what) {
        if (!so) {
            throw new AssertionError(what);
        }
    }

    private static void fails(Class<? extends Exception> error, Doing doing) throws Exception {
        try {
            doing.run();
        } catch (Exception caught) {
            if (error.isInstance(caught)) {
                return;
            }
            throw caught;
        }
        throw new AssertionError("no " + error);
    }

    // Lets the server be killed with SIGKILL and started again on the same data and port.
    private static void restart() throws Exception {
        System.out.println("restart");
        System.out.flush();
        check("restarted".equals(ANSWERS.readLine()), "restarted");
    }

    private static RedissonClient connect() {
        Config config = new Config();
        config.useSingleServer().setAddress("redis://127.0.0.1:" + PORT)
            .setConnectionMinimumIdleSize(2).setConnectionPoolSize(16)
            .setSubscriptionConnectionMinimumIdleSize(1)
            .setRetryAttempts(20);
        return Redisson.create(config);
    }

    private static void until(String what, java.util.concurrent.Callable<Boolean> so)
        throws Exception {
        for (int looks = 0; !so.call(); looks++) {
            check(looks < 3000, what);
            Thread.sleep(10);
        }
    }

    private static void lock(RedissonClient one, RedissonClient two) throws Exception {
        RLock mine = one.getLock("rs:lock");
        RLock other = two.getLock("rs:lock");
        check(mine.tryLock(0, LONG, TimeUnit.SECONDS), "it is free");
        check(!other.tryLock(), "it is held");
        check(!other.tryLock(100, LONG * 1000, TimeUnit.MILLISECONDS), "it stays held");
        check(mine.tryLock(0, LONG, TimeUnit.SECONDS), "it is entered again");
        check(mine.getHoldCount() == 2, "twice");
        ok("RLock: contention, entered again");
        fails(IllegalMonitorStateException.class, other::unlock);
        check(mine.isHeldByCurrentThread() && other.isLocked(), "it stays held");
        ok("RLock: released by another stays held");
        Future<Boolean> waiter =
            elsewhere(() -> other.tryLock(LONG, LONG, TimeUnit.SECONDS) && unlocked(other));
        mine.unlock();
        check(mine.isLocked(), "once more");
        mine.unlock();
        check(waiter.get(60, TimeUnit.SECONDS), "the waiter is woken");
        ok("RLock: release wakes who waits");
        check(mine.tryLock(0, 300, TimeUnit.MILLISECONDS), "for a short time");
        other.lock(LONG, TimeUnit.SECONDS);
        fails(IllegalMonitorStateException.class, mine::unlock);
        check(other.isHeldByCurrentThread(), "the next has it");
        other.unlock();
        ok("RLock: expiry");
        mine.lock();
        check(mine.remainTimeToLive() > 0, "the watchdog's time");
        Thread.sleep(3500);
        check(mine.remainTimeToLive() > 25_000, "it is renewed");
        check(!other.tryLock(), "it is held");
        mine.unlock();
        ok("RLock: renewed by its watchdog");
    }

    private static boolean unlocked(RLock lock) {
        lock.unlock();
        return true;
    }

    private static final ExecutorService THREADS = Executors.newCachedThreadPool(doing -> {
        Thread thread = new Thread(doing);
        thread.setDaemon(true);
        return thread;
    });

    private static <T> Future<T> elsewhere(java.util.concurrent.Callable<T> doing) {
        return THREADS.submit(doing);
    }

    private static void fair(RedissonClient one, RedissonClient two) throws Exception {
        RLock mine = one.getFairLock("rs:fair");
        mine.lock(LONG, TimeUnit.SECONDS);
        List<Integer> order = new ArrayList<>();
        List<Future<Boolean>> waiters = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            int number = i;
            waiters.add(elsewhere(() -> {
                RLock lock = two.getFairLock("rs:fair");
                lock.lock(LONG, TimeUnit.SECONDS);
                synchronized (order) {
                    order.add(number);
                }
                return unlocked(lock);
            }));
            int wanted = i + 1;
            until("it stands in line",
                () -> one.getList("redisson_lock_queue:{rs:fair}").size() == wanted);
        }
        mine.unlock();
        for (Future<Boolean> waiter : waiters) {
            waiter.get(60, TimeUnit.SECONDS);
        }
        check(order.equals(List.of(0, 1, 2, 3, 4)), "in order: " + order);
        ok("RFairLock: in order of arrival");
    }

    private static void readWrite(RedissonClient one, RedissonClient two) throws Exception {
        RReadWriteLock mine = one.getReadWriteLock("rs:rw");
        RReadWriteLock other = two.getReadWriteLock("rs:rw");
        check(mine.readLock().tryLock(0, LONG, TimeUnit.SECONDS), "one reads");
        check(other.readLock().tryLock(0, LONG, TimeUnit.SECONDS), "two read");
        check(!other.writeLock().tryLock(), "nobody writes");
        mine.readLock().unlock();
        Future<Boolean> writer = elsewhere(() -> {
            mine.writeLock().lock(LONG, TimeUnit.SECONDS);
            return unlocked(mine.writeLock());
        });
        other.readLock().unlock();
        check(writer.get(60, TimeUnit.SECONDS), "the writer is woken");
        check(mine.writeLock().tryLock(0, LONG, TimeUnit.SECONDS), "one writes");
        check(!other.readLock().tryLock(), "nobody reads");
        check(mine.readLock().tryLock(0, LONG, TimeUnit.SECONDS), "the writer reads");
        mine.writeLock().unlock();
        check(other.readLock().tryLock(0, LONG, TimeUnit.SECONDS), "others read too");
        mine.readLock().unlock();
        other.readLock().unlock();
        ok("RReadWriteLock");
    }

    private static void semaphores(RedissonClient one, RedissonClient two) throws Exception {
        RSemaphore mine = one.getSemaphore("rs:semaphore");
        RSemaphore other = two.getSemaphore("rs:semaphore");
        check(mine.trySetPermits(2), "two permits");
        check(mine.tryAcquire() && other.tryAcquire() && !mine.tryAcquire(), "two are given");
        Future<Boolean> waiter = elsewhere(() -> {
            other.acquire();
            return true;
        });
        mine.release();
        check(waiter.get(60, TimeUnit.SECONDS), "the waiter is woken");
        check(mine.availablePermits() == 0, "none is left");
        ok("RSemaphore");
        RPermitExpirableSemaphore leased = one.getPermitExpirableSemaphore("rs:leased");
        RPermitExpirableSemaphore same = two.getPermitExpirableSemaphore("rs:leased");
        check(leased.trySetPermits(1), "one permit");
        String permit = leased.acquire(LONG, TimeUnit.SECONDS);
        check(permit != null && same.tryAcquire() == null, "it is given once");
        check(!same.tryRelease("00000000000000000000000000000000"), "only by its number");
        leased.release(permit);
        String short_ = same.acquire(300, TimeUnit.MILLISECONDS);
        check(short_ != null, "for a short time");
        check(leased.acquire(LONG, TimeUnit.SECONDS) != null, "it comes back by its end");
        ok("RPermitExpirableSemaphore");
    }

    private static void several(RedissonClient one, RedissonClient two) throws Exception {
        RLock both = one.getMultiLock(one.getLock("rs:m1"), two.getLock("rs:m2"));
        check(both.tryLock(1, LONG, TimeUnit.SECONDS), "both");
        check(!two.getLock("rs:m1").tryLock(), "the first is held");
        both.unlock();
        RLock fenced = one.getFencedLock("rs:fenced");
        Long first = one.getFencedLock("rs:fenced").lockAndGetToken();
        fenced.unlock();
        Long second = two.getFencedLock("rs:fenced").lockAndGetToken();
        check(second > first, "the token grows");
        RLock spin = one.getSpinLock("rs:spin");
        spin.lock(LONG, TimeUnit.SECONDS);
        spin.unlock();
        AtomicInteger inside = new AtomicInteger();
        CountDownLatch done = new CountDownLatch(8);
        for (int i = 0; i < 8; i++) {
            RedissonClient client = i % 2 == 0 ? one : two;
            CompletableFuture.runAsync(() -> {
                RLock lock = client.getLock("rs:turns");
                for (int turn = 0; turn < 20; turn++) {
                    lock.lock(LONG, TimeUnit.SECONDS);
                    check(inside.incrementAndGet() == 1, "alone");
                    inside.decrementAndGet();
                    lock.unlock();
                }
                done.countDown();
            }, THREADS);
        }
        check(done.await(60, TimeUnit.SECONDS), "all took their turns");
        ok("RMultiLock, RFencedLock, RSpinLock, 160 turns");
    }

    private static void killed(RedissonClient one, RedissonClient two) throws Exception {
        RLock mine = one.getLock("rs:kept");
        RLock other = two.getLock("rs:kept");
        mine.lock(LONG, TimeUnit.SECONDS);
        restart();
        until("it is reached again", () -> {
            try {
                return other.isLocked();
            } catch (org.redisson.client.RedisException gone) {
                return false;
            }
        });
        check(!other.tryLock(), "it is held");
        fails(IllegalMonitorStateException.class, other::unlock);
        check(mine.isHeldByCurrentThread(), "by its owner");
        check(mine.remainTimeToLive() > 0, "for some time");
        Future<Boolean> waiter =
            elsewhere(() -> other.tryLock(LONG, LONG, TimeUnit.SECONDS) && unlocked(other));
        mine.unlock();
        check(waiter.get(60, TimeUnit.SECONDS), "the waiter is woken");
        ok("RLock: after kill -9");
    }

    private static void shedLock() throws Exception {
        try (JedisPool pool = new JedisPool("127.0.0.1", PORT)) {
            JedisLockProvider mine = new JedisLockProvider(pool, "one");
            JedisLockProvider other = new JedisLockProvider(pool, "one");
            LockConfiguration name = config("shed", Duration.ofSeconds(LONG));
            var lock = mine.lock(name).orElseThrow();
            check(other.lock(name).isEmpty(), "it is held");
            var longer = lock.extend(Duration.ofSeconds(2 * LONG), Duration.ZERO).orElseThrow();
            restart();
            pool.clear();
            check(other.lock(name).isEmpty(), "it is still held");
            longer.unlock();
            check(other.lock(config("shed", Duration.ofMillis(300))).isPresent(), "it is free");
            until("it ends", () -> mine.lock(name).isPresent());
        }
        ok("ShedLock");
    }

    private static LockConfiguration config(String name, Duration most) {
        return new LockConfiguration(Instant.now(), name, most, Duration.ZERO);
    }

    public static void main(String[] arguments) throws Exception {
        RedissonClient one = connect();
        RedissonClient two = connect();
        lock(one, two);
        fair(one, two);
        readWrite(one, two);
        semaphores(one, two);
        several(one, two);
        killed(one, two);
        shedLock();
        one.shutdown();
        two.shutdown();
        System.exit(0);
    }
}
