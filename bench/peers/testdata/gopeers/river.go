package main

import (
	"context"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/drover-run/drover/bench/work"
)

type jobArgs struct {
	Body string `json:"body"`
}

// Kind implements river.JobArgs.
func (jobArgs) Kind() string { return "job" }

type jobWorker struct {
	river.WorkerDefaults[jobArgs]
	job *work.Job
}

// Work implements river.Worker.
func (w *jobWorker) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	return w.job.Do(ctx, []byte(job.Args.Body))
}

// runRiver works on the jobs of a PostgreSQL database.
func runRiver(ctx context.Context) error {
	job, err := work.FromEnv()
	if err != nil {
		return err
	}
	most, err := number("PEER_WORKERS")
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	workers := river.NewWorkers()
	river.AddWorker(workers, &jobWorker{job: job})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: most}},
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond, Workers: workers,
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-client.Stopped()
	return nil
}

// sendRiver makes the tables, and inserts jobs.
func sendRiver(ctx context.Context, count, size, rate int) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	client, err := river.NewClient(driver, &river.Config{})
	if err != nil {
		return err
	}
	batch := 1
	if rate == 0 {
		batch = 2000
	}
	var open []river.InsertManyParams
	return work.AtRate(ctx, count, rate, func(n int) error {
		open = append(open, river.InsertManyParams{Args: jobArgs{string(work.Body(size))}})
		if len(open) < batch && n < count {
			return nil
		}
		_, err := client.InsertManyFast(ctx, open)
		open = open[:0]
		return err
	})
}
