// Runs the public cache test suite (npm `http-cache-tests`) against `eleven proxy --cache` and compares the outcome
// of every test with `expected.tsv`. A test that passes although it was expected to fail is an error as well: the
// table is to tell the truth.
//
// Usage: node run.mjs PATH-OF-ELEVEN [--dir] [--id TEST] [--write]
//   --dir    with a cache directory behind the memory
//   --id     runs one test and prints its messages
//   --write  prints the table instead of comparing (reasons are kept)

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'
import fetch from 'node-fetch'
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import tests from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'
import more from './more.mjs'
import handleConfig from 'http-cache-tests/server/handle-config.mjs'
import handleState from 'http-cache-tests/server/handle-state.mjs'
import handleTest from 'http-cache-tests/server/handle-test.mjs'

const here = path.dirname(fileURLToPath(import.meta.url))
const table = path.join(here, 'expected.tsv')
const [eleven, ...flags] = process.argv.slice(2)
const one = flags.includes('--id') ? flags[flags.indexOf('--id') + 1] : undefined
if (!eleven) {
  console.error('usage: node run.mjs PATH-OF-ELEVEN [--dir] [--id TEST] [--write]')
  process.exit(2)
}

// The suite's origin server, on the loopback interface only.
const quiet = () => {}
const log = console.log
const origin = http.createServer((request, response) => {
  const segments = new URL(request.url, 'http://origin').pathname.split('/').slice(1)
  const handler = { config: handleConfig, state: handleState, test: handleTest }[segments.shift()]
  if (handler) return handler(segments, request, response)
  response.statusCode = 404
  response.end()
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
const originUrl = `http://127.0.0.1:${origin.address().port}`

const directory = flags.includes('--dir') ? fs.mkdtempSync(path.join(os.tmpdir(), 'eleven-cache-suite-')) : undefined
const args = ['proxy', originUrl, '--listen', '127.0.0.1:0', '--quiet', '--cache']
if (directory) args.push('--cache-dir', directory)
const proxy = spawn(eleven, args, { stdio: ['ignore', 'ignore', 'pipe'] })
const proxyUrl = await new Promise((resolve, reject) => {
  proxy.on('exit', code => reject(new Error(`eleven ended with ${code}`)))
  readline.createInterface({ input: proxy.stderr }).on('line', line => {
    const address = / on (?:http:\/\/)?(127\.0\.0\.1:\d+)/.exec(line)
    if (address) resolve(`http://${address[1]}`)
  })
})

process.on('uncaughtException', error => {
  console.error(error)
  stop(1)
})
process.on('unhandledRejection', error => {
  console.error(error)
  stop(1)
})

function stop (code) {
  proxy.removeAllListeners('exit')
  proxy.kill('SIGTERM')
  if (directory) fs.rmSync(directory, { recursive: true, force: true })
  process.exit(code)
}

const suites = [...tests, surrogate, ...more].map(suite => ({
  ...suite,
  tests: suite.tests.filter(test => one === undefined || test.id === one)
}))
const kinds = new Map()
for (const suite of suites) {
  for (const test of suite.tests) {
    kinds.set(test.id, test.kind ?? 'required')
    test.dump = one !== undefined
  }
}
if (one === undefined) console.log = quiet
await runTests(suites, fetch, false, proxyUrl, 60)
console.log = log
const results = getResults()

if (one !== undefined) {
  log(JSON.stringify(results, null, 2))
  stop(0)
}

// `pass`, `fail` (what was asked for was not done) or `setup` (the test could not be carried out).
const outcome = result => (result === true ? 'pass' : result[0] === 'Setup' ? 'setup' : 'fail')
const expected = new Map()
if (fs.existsSync(table)) {
  for (const line of fs.readFileSync(table, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [id, , what, reason] = line.split('\t')
    expected.set(id, { what, reason: reason ?? '' })
  }
}

if (flags.includes('--write')) {
  log('# id\tkind\toutcome\twhy it is not a pass')
  for (const [id, result] of Object.entries(results)) {
    const what = outcome(result)
    const reason = what === 'pass' ? '' : expected.get(id)?.reason || `? ${result[1]}`
    log([id, kinds.get(id), what, reason].join('\t').trimEnd())
  }
  stop(0)
}

const wrong = []
const counts = {}
for (const [id, result] of Object.entries(results)) {
  const what = outcome(result)
  const kind = kinds.get(id)
  counts[kind] ??= { pass: 0, fail: 0, setup: 0 }
  counts[kind][what]++
  const want = expected.get(id)
  if (want?.what !== what) {
    wrong.push(`${id}: expected ${want?.what ?? 'nothing (not in the table)'}, got ${what}${result === true ? '' : `: ${result[1]}`}`)
  } else if (what !== 'pass' && !want.reason) {
    wrong.push(`${id}: ${what} without a reason in the table`)
  }
}
for (const id of expected.keys()) if (!(id in results)) wrong.push(`${id}: in the table, but not run`)
for (const [kind, count] of Object.entries(counts)) {
  log(`${kind}: ${count.pass} of ${count.pass + count.fail + count.setup} passed, ${count.fail} failed, ${count.setup} not carried out`)
}
for (const line of wrong) log(line)
stop(wrong.length === 0 ? 0 : 1)
