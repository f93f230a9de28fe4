// Takes the batches that Rekindle's door takes and answers when they are committed. One statement for a batch: copies of a message id
// are left out by a unique index; with STATE=1 the people's rows are brought up to date in the same statement.
import Fastify from "fastify";
import pg from "pg";

const withState = process.env.STATE === "1";
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
await pool.query(`
  drop table if exists events, people;
  create table events (
    seq bigint generated always as identity primary key,
    message_id text not null unique,
    person text not null,
    name text not null,
    occurred_at timestamptz not null,
    properties jsonb not null
  );
  create table people (person text primary key, events bigint not null, last_active_at timestamptz not null, due_at timestamptz not null);
`);

const insert = `
  insert into events (message_id, person, name, occurred_at, properties)
  select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[])
  on conflict (message_id) do nothing returning person, occurred_at`;
const stored = `with fresh as (${insert}) select count(*)::int as accepted from fresh`;
// in one order, or two batches with people in common lock each other out
const counted = `
  with fresh as (${insert}),
  sums as (select person, count(*) as events, max(occurred_at) as last from fresh group by person order by person),
  state as (
    insert into people (person, events, last_active_at, due_at) select person, events, last, now() from sums
    on conflict (person) do update set events = people.events + excluded.events,
      last_active_at = greatest(people.last_active_at, excluded.last_active_at), due_at = now()
  )
  select count(*)::int as accepted from fresh`;
const statement = { name: "batch", text: withState ? counted : stored };

const app = Fastify({ bodyLimit: 512 * 1024 });
app.post("/v1/batch", async (request) => {
  const batch = request.body.batch;
  const values = [
    batch.map((message) => message.messageId),
    batch.map((message) => message.userId),
    batch.map((message) => message.event),
    batch.map((message) => message.timestamp),
    batch.map((message) => JSON.stringify(message.properties)),
  ];
  const result = await pool.query({ ...statement, values });
  return { success: true, accepted: result.rows[0].accepted };
});

const address = await app.listen({ port: Number(process.env.PORT ?? 0), host: "127.0.0.1" });
console.log(address.replace("http://", ""));
