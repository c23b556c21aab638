// Neon's serverless driver (@neondatabase/serverless) against POST /sql: what an application that has no connection does.
// Modules come from the folder in TIDEGATE_NODE_MODULES, where `cargo xtask test` has installed them.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.TIDEGATE_NODE_MODULES ?? import.meta.dirname, 'index.js'))
const { neon, neonConfig, NeonDbError } = require('@neondatabase/serverless')

const [connectionString, endpoint] = process.argv.slice(2)
if (!connectionString || !endpoint) {
  console.error('usage: neon_serverless.mjs postgres://user:password@host/database http://host:port/sql')
  process.exit(2)
}
neonConfig.fetchEndpoint = () => endpoint

const sql = neon(connectionString)

const cases = {
  async a_tagged_template() {
    const name = "o'clock ☃"
    assert.deepEqual(await sql`SELECT ${name} AS name, ${7}::int + 1 AS n`, [{ name, n: 8 }])
    assert.deepEqual(await sql.query('SELECT $1::int AS a', [1]), [{ a: 1 }])
    const part = sql`WHERE n > ${2}`
    assert.deepEqual(await sql`SELECT n FROM generate_series(1, 4) n ${part} ORDER BY n`, [{ n: 3 }, { n: 4 }])
  },
  async values_have_their_types() {
    const [row] = await sql`SELECT 1::int2 AS i2, 2147483647::int4 AS i4, 9007199254740993::int8 AS i8, 1.5::float8 AS f8,
      'NaN'::float8 AS nan, 0.1::numeric AS n, true AS b, 'x'::text AS t, NULL::int AS nothing, '\\x00ff'::bytea AS bytes,
      '2024-02-29T12:00:00Z'::timestamptz AS at, '{"a": [1, null]}'::jsonb AS j, '11111111-2222-3333-4444-555555555555'::uuid AS u`
    assert.deepEqual({ ...row, nan: 0, at: 0, bytes: 0 }, {
      i2: 1, i4: 2147483647, i8: '9007199254740993', f8: 1.5, nan: 0, n: '0.1', b: true, t: 'x', nothing: null, bytes: 0,
      at: 0, j: { a: [1, null] }, u: '11111111-2222-3333-4444-555555555555',
    })
    assert.ok(Number.isNaN(row.nan))
    assert.equal(row.at.toISOString(), '2024-02-29T12:00:00.000Z')
    assert.deepEqual(Buffer.from(row.bytes), Buffer.from([0, 255]))
  },
  async parameters_of_every_kind() {
    const values = [7, 'text', null, true, new Date(0), Buffer.from([1, 2]), { a: [1] }, [1, 2, null], ['x', 'a"b'], 12n]
    const [row] = await sql.query(
      `SELECT $1::int AS a, $2::text AS b, $3::int AS c, $4::bool AS d, $5::timestamptz AS e, $6::bytea AS f, $7::jsonb AS g,
       $8::int[] AS h, $9::text[] AS i, $10::int8 AS j`, values)
    assert.deepEqual([row.a, row.b, row.c, row.d, row.g, row.h, row.i, row.j],
      [7, 'text', null, true, { a: [1] }, [1, 2, null], ['x', 'a"b'], '12'])
    assert.equal(row.e.getTime(), 0)
    assert.deepEqual(Buffer.from(row.f), Buffer.from([1, 2]))
  },
  async arrays_and_their_nulls() {
    const [row] = await sql`SELECT ARRAY[1, NULL, 3] AS n, ARRAY['a', 'b,c', 'NULL', NULL] AS t, '{}'::int[] AS none,
      ARRAY[[1, 2], [3, 4]] AS deep`
    assert.deepEqual(row, { n: [1, null, 3], t: ['a', 'b,c', 'NULL', null], none: [], deep: [[1, 2], [3, 4]] })
  },
  async full_results_and_array_mode() {
    const options = { fullResults: true, arrayMode: true }
    const result = await sql.query('SELECT n, n * 2 AS twice FROM generate_series(1, 3) n', [], options)
    assert.deepEqual(result.rows, [[1, 2], [2, 4], [3, 6]])
    assert.equal(result.command, 'SELECT')
    assert.equal(result.rowCount, 3)
    assert.equal(result.rowAsArray, true)
    assert.deepEqual(result.fields.map((field) => [field.name, field.dataTypeID, field.format]), [['n', 23, 'text'], ['twice', 23, 'text']])
    const arrays = neon(connectionString, { arrayMode: true })
    assert.deepEqual(await arrays`SELECT 1, 2`, [[1, 2]])
    // Two columns of one name are both there only so.
    assert.deepEqual(await arrays`SELECT 1 AS a, 2 AS a`, [[1, 2]])
    assert.deepEqual(await sql``, [])
  },
  async writes_say_how_many() {
    const full = neon(connectionString, { fullResults: true })
    await sql`CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL)`
    const inserted = await full`INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 5) n`
    assert.deepEqual([inserted.command, inserted.rowCount, inserted.rows], ['INSERT', 5, []])
    const updated = await full`UPDATE items SET name = upper(name) WHERE id < 3 RETURNING id, name`
    assert.deepEqual([updated.rowCount, updated.rows], [2, [{ id: 1, name: 'ITEM 1' }, { id: 2, name: 'ITEM 2' }]])
  },
  async a_transaction_is_all_or_nothing() {
    const [, count] = await sql.transaction([
      sql`INSERT INTO items VALUES (${10}, ${'ten'})`,
      sql`SELECT count(*)::int AS n FROM items`,
    ])
    assert.deepEqual(count, [{ n: 6 }])
    await assert.rejects(sql.transaction([
      sql`INSERT INTO items VALUES (11, 'eleven')`,
      sql`INSERT INTO items VALUES (10, 'again')`,
      sql`INSERT INTO items VALUES (12, 'twelve')`,
    ]), { code: '23505', constraint: 'items_pkey', table: 'items' })
    assert.deepEqual(await sql`SELECT id FROM items WHERE id > 10`, [])
    const seen = await sql.transaction((tx) => [
      tx`SELECT current_setting('transaction_isolation') AS level, current_setting('transaction_read_only') AS ro,
         current_setting('transaction_deferrable') AS de`,
      tx`SELECT 1 AS a`,
    ], { isolationLevel: 'Serializable', readOnly: true, deferrable: true })
    assert.deepEqual(seen, [[{ level: 'serializable', ro: 'on', de: 'on' }], [{ a: 1 }]])
    await assert.rejects(
      sql.transaction([sql`INSERT INTO items VALUES (13, 'no')`], { readOnly: true }), { code: '25006' })
    // The whole snapshot is one.
    const [before, , after] = await sql.transaction([
      sql`SELECT txid_current() AS t`, sql`SELECT pg_sleep(0.01)`, sql`SELECT txid_current() AS t`])
    assert.deepEqual(before, after)
  },
  async errors_say_what_postgresql_says() {
    await assert.rejects(sql`SELECT nope FROM items`, (error) => {
      assert.ok(error instanceof NeonDbError)
      assert.deepEqual([error.code, error.severity, error.position], ['42703', 'ERROR', '8'])
      assert.match(error.message, /column "nope" does not exist/)
      return true
    })
    await assert.rejects(sql`SELECT 1/${0}::int`, { code: '22012' })
    await assert.rejects(sql.query('SELECT $1::int', ['x']), { code: '22P02' })
    await assert.rejects(sql.query('SELECT 1; SELECT 2'), { code: '42601' })
    await assert.rejects(sql.query('SELECT $1, $2', [1]), { code: '08P01' })
    await assert.rejects(sql`INSERT INTO items VALUES (99, NULL)`, { code: '23502', column: 'name', table: 'items', schema: 'public' })
    await assert.rejects(
      sql`DO $$ BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'P9999', DETAIL = 'more', HINT = 'less'; END $$`,
      { code: 'P9999', message: 'custom', detail: 'more', hint: 'less' })
  },
  async a_wrong_password_is_refused() {
    const url = new URL(connectionString)
    url.password = 'wrong'
    await assert.rejects(neon(url.href)`SELECT 1`, /HTTP status 401.*28P01/)
  },
  async many_at_once() {
    const answers = await Promise.all(Array.from({ length: 60 }, (_, n) => sql`SELECT ${n}::int AS n, pg_sleep(0.01)`))
    assert.deepEqual(answers.map(([row]) => row.n), Array.from({ length: 60 }, (_, n) => n))
  },
  async nothing_is_left_for_the_next() {
    await sql`SET statement_timeout = '7s'`
    await sql`SELECT set_config('app.tenant', 'one', false)`
    const seen = await Promise.all(Array.from({ length: 10 }, () =>
      sql`SELECT current_setting('statement_timeout') AS t, coalesce(current_setting('app.tenant', true), '') AS tenant`))
    for (const [row] of seen) assert.deepEqual(row, { t: '0', tenant: '' })
  },
  async what_the_connection_string_sets() {
    const url = new URL(connectionString)
    url.searchParams.set('application_name', 'my app')
    url.searchParams.set('options', '-c statement_timeout=9s -c search_path=pg_catalog')
    url.searchParams.set('sslmode', 'require')
    const [row] = await neon(url.href)`SELECT current_setting('application_name') AS app,
      current_setting('statement_timeout') AS t, current_setting('search_path') AS path`
    assert.deepEqual(row, { app: 'my app', t: '9s', path: 'pg_catalog' })
  },
  async a_large_result() {
    const rows = await sql`SELECT n, repeat('x', 500) AS t FROM generate_series(1, 40000) n`
    assert.equal(rows.length, 40000)
    assert.ok(rows.every((row, index) => row.n === index + 1 && row.t.length === 500))
  },
  async a_large_parameter() {
    const text = '0123456789abcdef☃'.repeat(1 << 16)
    assert.equal((await sql`SELECT ${text}::text AS t`)[0].t, text)
  },
  async an_abort_ends_the_statement() {
    const mark = `aborted ${process.pid}`
    const abort = new AbortController()
    // It is asked when somebody waits for it.
    const asked = sql.query(`SELECT pg_sleep(30), '${mark}'`, [], { fetchOptions: { signal: abort.signal } }).then(() => 'answered', () => 'aborted')
    // Where it runs, not on a replica.
    const url = new URL(connectionString)
    url.searchParams.set('options', '-c tidegate.route=primary')
    const running = () => neon(url.href).query(
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE $1", [`%'${mark}'%`])
    const until = async (wanted) => {
      const deadline = Date.now() + 15_000
      while ((await running())[0].n !== wanted) {
        assert.ok(Date.now() < deadline, `waited in vain for ${wanted}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    await until(1)
    abort.abort()
    assert.equal(await asked, 'aborted')
    await until(0)
  },
}

for (const [name, run] of Object.entries(cases)) {
  await run()
  console.log(`ok ${name}`)
}
