// node-postgres against a database: simple and extended queries, pools, cursors, streams, COPY.
// Modules come from the folder in TIDEGATE_NODE_MODULES, where `cargo xtask test` has installed them.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Readable, Writable } from 'node:stream'

const require = createRequire(join(process.env.TIDEGATE_NODE_MODULES ?? import.meta.dirname, 'index.js'))
const pg = require('pg')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const connectionString = process.argv[2]
if (!connectionString) {
  console.error('usage: node_postgres.mjs postgres://user:password@host:port/database')
  process.exit(2)
}

const cases = {
  async simple_and_parameterised_queries(c) {
    assert.deepEqual((await c.query('SELECT 1 AS a')).rows, [{ a: 1 }])
    const { rows, fields } = await c.query('SELECT $1::int AS n, $2::text AS t, $3::jsonb AS j, $4::bytea AS b, $5::int[] AS l',
      [7, 'snowman ☃', { a: [1, null] }, Buffer.from([0, 255]), [1, 2, null]])
    assert.deepEqual(rows[0], { n: 7, t: 'snowman ☃', j: { a: [1, null] }, b: Buffer.from([0, 255]), l: [1, 2, null] })
    assert.deepEqual(fields.map((f) => f.dataTypeID), [23, 25, 3802, 17, 1007])
    assert.equal((await c.query('SELECT $1::text AS t', [null])).rows[0].t, null)
  },
  async named_statements_are_parsed_once(c) {
    const other = await connect()
    for (let n = 0; n < 50; n++) {
      assert.equal((await c.query({ name: 'plus', text: 'SELECT $1::int + 1 AS a', values: [n] })).rows[0].a, n + 1)
      assert.equal((await other.query({ name: 'plus', text: 'SELECT $1::int + 2 AS a', values: [n] })).rows[0].a, n + 2)
    }
    await other.end()
  },
  async binary_results(c) {
    const result = await c.query({ text: 'SELECT $1::int AS a, $2::text AS b', values: [9, 'x'], binary: true })
    assert.deepEqual(result.rows, [{ a: 9, b: 'x' }])
  },
  async rows_as_arrays(c) {
    assert.deepEqual((await c.query({ text: 'SELECT 1, 2', rowMode: 'array' })).rows, [[1, 2]])
  },
  async queued_queries_answer_in_order(c) {
    const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => c.query('SELECT $1::int AS n', [n])))
    assert.deepEqual(answers.map((r) => r.rows[0].n), Array.from({ length: 100 }, (_, n) => n))
  },
  async several_statements_in_one_query(c) {
    const results = await c.query('SELECT 1 AS a; SELECT 2 AS b; SELECT 3 AS c')
    assert.deepEqual(results.map((r) => r.rows[0]), [{ a: 1 }, { b: 2 }, { c: 3 }])
  },
  async empty_query(c) {
    assert.deepEqual((await c.query('')).rows, [])
  },
  async errors_leave_the_connection_usable(c) {
    for (let n = 0; n < 5; n++) {
      await assert.rejects(c.query('SELECT 1/0'), { code: '22012' })
      await assert.rejects(c.query('SELECT $1::int', ['x']), { code: '22P02' })
      await assert.rejects(c.query({ name: `bad${n}`, text: 'SELECT nope', values: [] }), { code: '42703' })
      assert.equal((await c.query({ name: `bad${n}`, text: 'SELECT 1 AS a' })).rows[0].a, 1)
    }
  },
  async transactions_and_savepoints(c) {
    await c.query('DROP TABLE IF EXISTS ntx; CREATE TABLE ntx (a int PRIMARY KEY)')
    await c.query('BEGIN')
    await c.query('INSERT INTO ntx VALUES ($1)', [1])
    await c.query('SAVEPOINT s')
    await assert.rejects(c.query('INSERT INTO ntx VALUES ($1)', [1]), { code: '23505', constraint: 'ntx_pkey' })
    await assert.rejects(c.query('SELECT 1'), { code: '25P02' })
    await c.query('ROLLBACK TO s')
    await c.query('INSERT INTO ntx VALUES ($1)', [2])
    await c.query('COMMIT')
    await c.query('BEGIN; INSERT INTO ntx VALUES (3)')
    await c.query('ROLLBACK')
    assert.deepEqual((await c.query('SELECT a FROM ntx ORDER BY a')).rows, [{ a: 1 }, { a: 2 }])
    await c.query('BEGIN')
    await assert.rejects(c.query('SELECT 1/0'))
    assert.equal((await c.query('COMMIT')).command, 'ROLLBACK')
  },
  async a_pool_with_more_work_than_connections() {
    const pool = new pg.Pool({ connectionString, max: 20 })
    const answers = await Promise.all(Array.from({ length: 400 }, async (_, n) => {
      const client = await pool.connect()
      try {
        await client.query('BEGIN')
        const { rows } = await client.query('SELECT $1::int AS n', [n])
        await client.query('COMMIT')
        return rows[0].n
      } finally {
        client.release()
      }
    }))
    assert.deepEqual(answers, Array.from({ length: 400 }, (_, n) => n))
    await pool.end()
  },
  async more_clients_than_a_pool_has_servers() {
    await Promise.all(Array.from({ length: 80 }, async (_, number) => {
      const client = await connect()
      for (let n = 0; n < 10; n++) {
        assert.equal((await client.query('SELECT $1::int AS a', [number * 100 + n])).rows[0].a, number * 100 + n)
      }
      await client.end()
    }))
  },
  async cursors_suspend_their_portal(c) {
    await c.query('BEGIN')
    const cursor = c.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [250]))
    const seen = []
    for (let rows = await cursor.read(100); rows.length > 0; rows = await cursor.read(100)) {
      seen.push(...rows.map((row) => row.n))
    }
    await cursor.close()
    await c.query('COMMIT')
    assert.deepEqual(seen, Array.from({ length: 250 }, (_, n) => n + 1))
  },
  async a_cursor_closed_early(c) {
    const cursor = c.query(new Cursor('SELECT generate_series(1, 100000) AS n'))
    assert.equal((await cursor.read(10)).length, 10)
    await cursor.close()
    assert.equal((await c.query('SELECT 1 AS a')).rows[0].a, 1)
  },
  async results_as_a_stream(c) {
    let total = 0
    for await (const row of c.query(new QueryStream('SELECT n FROM generate_series(1, $1::int) n', [10000], { batchSize: 500 }))) {
      total += row.n
    }
    assert.equal(total, 50005000)
  },
  async copy_in_and_out(c) {
    await c.query('DROP TABLE IF EXISTS nc; CREATE TABLE nc (a int, b text)')
    const lines = Array.from({ length: 5000 }, (_, n) => `${n}\ttext ${n}\n`)
    await pipeline(Readable.from(lines), c.query(copyFrom('COPY nc FROM STDIN')))
    let out = ''
    await pipeline(c.query(copyTo('COPY (SELECT * FROM nc ORDER BY a) TO STDOUT')), new Writable({
      write(chunk, _encoding, done) { out += chunk; done() }
    }))
    assert.equal(out, lines.join(''))
    await assert.rejects(pipeline(Readable.from(['x\ty\n']), c.query(copyFrom('COPY nc FROM STDIN'))), { code: '22P02' })
    assert.equal((await c.query('SELECT count(*)::int AS n FROM nc')).rows[0].n, 5000)
  },
  async listen_and_notify(c) {
    const heard = []
    const two = new Promise((resolve) => c.on('notification', (n) => {
      heard.push([n.channel, n.payload])
      if (heard.length === 2) resolve()
    }))
    await c.query('LISTEN nnews')
    const other = await connect()
    await other.query("SELECT pg_notify('nnews', $1)", ['one'])
    await other.end()
    await c.query("NOTIFY nnews, 'two'")
    await two
    assert.deepEqual(heard, [['nnews', 'one'], ['nnews', 'two']])
    await c.query('UNLISTEN *')
  },
  async notices(c) {
    const heard = new Promise((resolve) => c.once('notice', resolve))
    await c.query("DO $$ BEGIN RAISE NOTICE 'hello' USING DETAIL = 'more'; END $$")
    const { message, detail } = await heard
    assert.deepEqual([message, detail], ['hello', 'more'])
  },
  async settings_stay_with_their_client(c) {
    const other = await connect({ application_name: 'node suite', options: '-c statement_timeout=9s' })
    await c.query("SET statement_timeout = '7s'")
    for (let n = 0; n < 10; n++) {
      assert.equal((await c.query('SHOW statement_timeout')).rows[0].statement_timeout, '7s')
      assert.equal((await other.query('SHOW statement_timeout')).rows[0].statement_timeout, '9s')
      assert.equal((await other.query('SHOW application_name')).rows[0].application_name, 'node suite')
    }
    await other.end()
  },
  async timeouts(_c) {
    const c = await connect({ statement_timeout: 200 })
    await assert.rejects(c.query('SELECT pg_sleep(30)'), { code: '57014' })
    assert.equal((await c.query('SELECT 1 AS a')).rows[0].a, 1)
    await c.end()
  },
  async large_values_both_ways(c) {
    const text = '0123456789abcdef'.repeat(1 << 18)
    assert.equal((await c.query('SELECT $1::text AS t', [text])).rows[0].t, text)
    const { rows } = await c.query("SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n")
    assert.equal(rows.length, 20000)
  },
  async connections_that_vanish() {
    for (let n = 0; n < 10; n++) {
      const client = await connect()
      client.on('error', () => {})
      await client.query('BEGIN')
      client.query('SELECT pg_sleep(0.05)').catch(() => {})
      client.connection.stream.destroy()
    }
    const c = await connect()
    assert.equal((await c.query('SELECT 1 AS a')).rows[0].a, 1)
    await c.end()
  },
  async a_wrong_password_is_refused() {
    const url = new URL(connectionString)
    url.password = 'wrong'
    const client = new pg.Client({ connectionString: url.href })
    await assert.rejects(client.connect(), { code: '28P01' })
  },
}

async function connect(options = {}) {
  const client = new pg.Client({ connectionString, ...options })
  await client.connect()
  return client
}

const chosen = process.argv.slice(3)
const wanted = Object.entries(cases).filter(([name]) => chosen.length === 0 || chosen.includes(name))
let failed = 0
for (const [name, run] of wanted) {
  const begun = performance.now()
  const client = await connect()
  client.on('error', (error) => console.error(`connection of ${name}: ${error.message}`))
  try {
    let timer
    const tooLong = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('took over 60 s')), 60_000) })
    await Promise.race([run(client), tooLong])
    clearTimeout(timer)
    console.log(`ok ${name} (${Math.round(performance.now() - begun)} ms)`)
  } catch (error) {
    failed += 1
    console.log(`FAILED ${name}`)
    console.error(error)
  }
  client.end().catch(() => {})
}
console.log(`${wanted.length - failed} passed, ${failed} failed`)
process.exit(failed > 0 || wanted.length === 0 ? 1 : 0)
