// redsync over go-redis.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
)

// Longer than any of these cases.
const long = 300 * time.Second

func check(so bool, what string) {
	if !so {
		fmt.Fprintln(os.Stderr, "not so:", what)
		os.Exit(1)
	}
}

func done(err error, what string) {
	check(err == nil, fmt.Sprint(what, ": ", err))
}

// Lets the server be killed with SIGKILL and started again on the same data and port.
func restart(answers *bufio.Reader) {
	fmt.Println("restart")
	line, err := answers.ReadString('\n')
	done(err, "an answer")
	check(line == "restarted\n", line)
}

func main() {
	answers := bufio.NewReader(os.Stdin)
	background := context.Background()
	options := &redis.Options{Addr: "127.0.0.1:" + os.Getenv("RESP_PORT"), MaxRetries: 20}
	client := redis.NewClient(options)
	one := redsync.New(goredis.NewPool(client))
	two := redsync.New(goredis.NewPool(redis.NewClient(options)))
	hold := func(from *redsync.Redsync, name string, ttl time.Duration) *redsync.Mutex {
		return from.NewMutex(name, redsync.WithExpiry(ttl), redsync.WithTries(3000),
			redsync.WithRetryDelay(10*time.Millisecond))
	}
	mine, other := hold(one, "go", long), hold(two, "go", long)
	done(mine.Lock(), "it is free")
	err := other.TryLock()
	var taken *redsync.ErrTaken
	// With one server, this release tells of a taken lock as of a failure.
	held := errors.As(err, &taken) || errors.Is(err, redsync.ErrFailed)
	check(held, fmt.Sprint("it is held: ", err))
	fmt.Println("ok contention")

	before, err := client.PTTL(background, "go").Result()
	done(err, "its time")
	time.Sleep(2 * time.Millisecond)
	extended, err := mine.Extend()
	check(extended && err == nil, fmt.Sprint("it is extended: ", err))
	valid, err := mine.Valid()
	check(valid && err == nil && before > 0, "it is valid")
	fmt.Println("ok extend")

	released, err := other.Unlock()
	check(!released && err != nil, "released by another")
	valid, _ = mine.Valid()
	check(valid, "it stays held")
	fmt.Println("ok released by another stays held")

	woken := make(chan error)
	go func() { woken <- other.Lock() }()
	released, err = mine.Unlock()
	check(released && err == nil, fmt.Sprint("it is released: ", err))
	done(<-woken, "the next has it")
	released, err = other.Unlock()
	check(released && err == nil, fmt.Sprint("it is released: ", err))
	fmt.Println("ok release")

	short := hold(one, "go:short", 300*time.Millisecond)
	done(short.Lock(), "for a short time")
	next := hold(two, "go:short", long)
	done(next.Lock(), "it ends")
	released, _ = short.Unlock()
	check(!released, "it was lost")
	fmt.Println("ok expiry")

	done(mine.Lock(), "it is free")
	restart(answers)
	check(other.TryLock() != nil, "it is still held")
	extended, err = mine.Extend()
	check(extended && err == nil, fmt.Sprint("it is extended: ", err))
	released, err = mine.Unlock()
	check(released && err == nil, fmt.Sprint("it is released: ", err))
	done(other.TryLock(), "it is free")
	fmt.Println("ok after kill -9")
}
