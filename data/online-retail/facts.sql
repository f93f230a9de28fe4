-- Known facts about online-retail, each a query for DuckDB (1.x or later), run from this folder's parent.
-- The answers are in facts.json under the same names. `order` = an "Order Completed" event.
-- All times are UTC as written; "days" are exact 24-hour days; an as-of instant T sees events with timestamp < T.

-- setup
create or replace view orl as select type, "messageId" mid, "userId" uid, event, timestamp::TIMESTAMP ts, properties, traits
  from read_json('online-retail/events.ndjson.gz', format='newline_delimited',
    columns={type:'VARCHAR', messageId:'VARCHAR', userId:'VARCHAR', event:'VARCHAR', timestamp:'VARCHAR',
             properties:'STRUCT(order_id VARCHAR, currency VARCHAR, total DOUBLE, revenue DOUBLE, lines INT, units BIGINT)',
             traits:'STRUCT(country_name VARCHAR, country VARCHAR, email VARCHAR)'});
create or replace view orders as select uid, ts, properties.order_id id, properties.revenue rev from orl where event='Order Completed';
create or replace view money as select uid, ts, event, properties.order_id id, properties.revenue rev from orl where type='track';
create or replace view dates as select unnest([timestamp '2011-03-01', timestamp '2011-06-01', timestamp '2011-09-01', timestamp '2011-12-10']) T;

-- name: or_totals
select count(*) messages, sum((type='identify')::INT)::INT identifies, sum((event='Order Completed')::INT)::INT orders, sum((event='Order Refunded')::INT)::INT refunds,
  count(distinct uid) users, count(distinct uid) filter (event='Order Completed') users_with_an_order,
  round(sum(properties.revenue) filter (event='Order Completed'),2) gross, round(sum(properties.revenue),2) net,
  min(ts) as first_at, max(ts) as last_at from orl;

-- name: or_countries_by_users
with lastc as (select uid, arg_max(traits.country_name, ts) c from orl where type='identify' group by 1)
select c country, count(*) users, round(sum(n),2) net from lastc join (select uid, sum(rev) n from money group by 1) using (uid) group by 1 order by 2 desc, 3 desc limit 12;

-- name: or_users_whose_country_changes
select uid, list(traits.country_name order by ts, mid) countries from orl where type='identify' group by 1 having count(*)>1 order by 1;

-- name: or_repeat_rate
select count(*) buyers, sum((n>=2)::INT)::INT repeaters, round(avg((n>=2)::INT),4) rate, max(n) most_orders, arg_max(uid,n) by_user from (select uid, count(*) n from orders group by 1);

-- name: or_silent_by_order
select strftime(T,'%Y-%m-%d') T, count(*) buyers,
  sum((last_ts <= T - interval 30 day)::INT)::INT silent30, sum((last_ts <= T - interval 60 day)::INT)::INT silent60,
  sum((last_ts <= T - interval 90 day)::INT)::INT silent90, sum((last_ts <= T - interval 180 day)::INT)::INT silent180
from (select T, uid, max(ts) as last_ts from orders, dates where ts < T group by 1,2) group by 1 order by 1;

-- name: or_silent_by_any_event
select strftime(T,'%Y-%m-%d') T, count(*) users, sum((last_ts <= T - interval 30 day)::INT)::INT silent30, sum((last_ts <= T - interval 90 day)::INT)::INT silent90
from (select T, uid, max(ts) as last_ts from money, dates where ts < T group by 1,2) group by 1 order by 1;

-- name: or_silence_episodes_by_month
-- one episode each time a buyer passes 30 days without an order, until 2011-12-10; dated by the day it is reached
with g as (select uid, ts, lead(ts) over (partition by uid order by ts) nxt from (select distinct uid, ts from orders))
select strftime(ts + interval 30 day, '%Y-%m') m, count(*) episodes, count(distinct uid) users from g
where ts + interval 30 day < timestamp '2011-12-10' and (nxt is null or nxt > ts + interval 30 day) group by 1 order by 1;

-- name: or_silence_episodes
with g as (select uid, ts, lead(ts) over (partition by uid order by ts) nxt from (select distinct uid, ts from orders)),
e as (select * from g where ts + interval 30 day < timestamp '2011-12-10' and (nxt is null or nxt > ts + interval 30 day))
select count(*) episodes, count(distinct uid) users, sum((nxt is not null)::INT)::INT ended_by_a_later_order,
  (select max(c) from (select count(*) c from e group by uid)) most_for_one_user from e;

-- name: or_order_at_exactly_30_days
-- the one place where an order falls on the very instant that its silence would begin (it is no episode above: nxt is not later)
with g as (select uid, ts, lead(ts) over (partition by uid order by ts) nxt from (select distinct uid, ts from orders))
select uid, ts previous_order, nxt next_order from g where nxt = ts + interval 30 day;

-- name: or_warn_penalty_winback
-- a chain on the last order: warning at 23 days, penalty at 30, win-back at 37, each only if no order came before it
with g as (select uid, ts, lead(ts) over (partition by uid order by ts) nxt from (select distinct uid, ts from orders)),
f as (select d, uid, ts, nxt from g, (select unnest([23,30,37]) d) where ts + to_days(d) < timestamp '2011-12-10' and (nxt is null or nxt > ts + to_days(d)))
select sum((d=23)::INT)::INT warnings, sum((d=30)::INT)::INT penalties, sum((d=37)::INT)::INT winbacks,
  (select count(*) from f where d=23 and nxt <= ts + interval 30 day) ordered_between_warning_and_penalty from f;

-- name: or_rfm_quantiles
with r as (select uid, date_diff('day', max(ts)::DATE, date '2011-12-10') rec, count(*) f, round(sum(rev),2) m from orders group by 1)
select quantile_disc(rec,[0,0.2,0.4,0.5,0.6,0.8,1]) recency_days, quantile_disc(f,[0,0.2,0.4,0.5,0.6,0.8,1]) frequency, quantile_disc(m,[0,0.2,0.4,0.5,0.6,0.8,1]) monetary from r;

-- name: or_rfm_8_segments
-- R is high when recency_days <= its median, F and M are high when above theirs; as of 2011-12-10
with r as (select uid, date_diff('day', max(ts)::DATE, date '2011-12-10') rec, count(*) f, round(sum(rev),2) m from orders group by 1),
q as (select quantile_disc(rec,0.5) qr, quantile_disc(f,0.5) qf, quantile_disc(m,0.5) qm from r)
select case when rec<=qr then 'R+' else 'R-' end || case when f>qf then 'F+' else 'F-' end || case when m>qm then 'M+' else 'M-' end seg, count(*) users, round(sum(m),2) revenue
from r, q group by 1 order by 1;

-- name: or_orders_in_trailing_windows
select strftime(T,'%Y-%m-%d') T, sum((ts >= T - interval 7 day)::INT)::INT d7, sum((ts >= T - interval 30 day)::INT)::INT d30, sum((ts >= T - interval 90 day)::INT)::INT d90,
  count(distinct uid) filter (ts >= T - interval 30 day) buyers30 from orders, dates where ts < T group by 1 order by 1;

-- name: or_tiers_trailing_180_days
-- net revenue (refunds count, negative) of the 180 days before T: none < 250 <= silver < 1000 <= gold < 5000 <= platinum; users seen before T
select strftime(T,'%Y-%m-%d') T, sum((n<250)::INT)::INT basic, sum((n>=250 and n<1000)::INT)::INT silver, sum((n>=1000 and n<5000)::INT)::INT gold, sum((n>=5000)::INT)::INT platinum
from (select T, uid, coalesce(round(sum(rev) filter (ts >= T - interval 180 day),2),0) n from money, dates where ts < T group by 1,2) group by 1 order by 1;

-- name: or_tier_changes
-- the same tier followed to the second until 2011-12-10: an event leaves at exactly ts + 180 days; all that comes and goes at one instant is taken together
with m as (select uid, ts, round(rev*100)::BIGINT v from money),
st as (select uid, ts, 1 k, v from m union all select uid, ts + interval 180 day, 0, -v from m where ts + interval 180 day < timestamp '2011-12-10'),
g as (select uid, ts, max(k) k, sum(v) v from st group by 1,2),
r as (select uid, ts, k, sum(v) over (partition by uid order by ts) s from g),
t as (select uid, ts, k, case when s>=500000 then 3 when s>=100000 then 2 when s>=25000 then 1 else 0 end t from r),
l as (select *, coalesce(lag(t) over (partition by uid order by ts),0) p from t)
select sum((t>p and k=1)::INT)::INT up_by_event, sum((t>p and k=0)::INT)::INT up_by_clock, sum((t<p and k=1)::INT)::INT down_by_event, sum((t<p and k=0)::INT)::INT down_by_clock from l;

-- name: or_first_month_cohorts
-- buyers by month of first order, and how many of them order again 1, 2, 3 and 6 calendar months later
with f as (select uid, date_trunc('month', min(ts)) m0 from orders group by 1),
a as (select distinct uid, date_diff('month', m0, date_trunc('month', ts)) k, m0 from orders join f using (uid))
select strftime(m0,'%Y-%m') cohort, count(distinct uid) size, count(distinct uid) filter (k=1) m1, count(distinct uid) filter (k=2) m2, count(distinct uid) filter (k=3) m3, count(distinct uid) filter (k=6) m6
from a group by 1 order by 1;

-- name: or_gap_between_orders_days
with g as (select date_diff('second', ts, lead(ts) over (partition by uid order by ts))/86400.0 d from (select distinct uid, ts from orders))
select count(d) gaps, round(quantile_cont(d,0.5),3) p50, round(quantile_cont(d,0.8),3) p80, round(quantile_cont(d,0.9),3) p90 from g;

-- name: or_refunded_in_full_within_an_hour
select o.uid, o.id, r.id refund, o.rev, date_diff('minute', o.ts, r.ts) after_minutes from money o join money r on o.uid=r.uid and o.event='Order Completed' and r.event='Order Refunded'
  and o.rev = -r.rev and o.rev > 0 and r.ts between o.ts and o.ts + interval 60 minute order by o.rev desc limit 5;

-- name: or_zero_value_orders
select count(*) n, list(id order by id) as ids from orders where rev = 0;

-- name: or_busiest_day
select strftime(ts,'%Y-%m-%d') d, count(*) track_events from money group by 1 order by 2 desc limit 3;
