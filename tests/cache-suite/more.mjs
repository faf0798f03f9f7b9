// Tests beside the suite's own: CDN-Cache-Control (RFC 9213) in place of Surrogate-Control, and what the suite says
// differently than RFC 9111 does today, as RFC 9111 has it.

import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'
import ageParse from 'http-cache-tests/tests/age-parse.mjs'
import partial from 'http-cache-tests/tests/partial.mjs'

const copy = test => JSON.parse(JSON.stringify(test))

// RFC 9213 in place of the older note: no targets within the value, keys in lower case only.
const others = /target|capabilit|remove-header|fresh-cc-nostore/
const cdn = surrogate.tests.filter(test => !others.test(test.id)).map(test => {
  const text = JSON.stringify(test).replaceAll('Surrogate-Control', 'CDN-Cache-Control')
  const made = JSON.parse(text)
  made.id = test.id.replace('surrogate', 'cdn')
  made.depends_on = undefined
  return made
})
for (const test of cdn) {
  // A dictionary has no upper-case keys: the field is ignored.
  if (test.id === 'cdn-max-age-case-insensitive') test.requests[1].expected_type = 'not_cached'
}
const response = (fields, expected) => [
  { response_headers: fields, setup: true, pause_after: true },
  { expected_type: expected }
]
const cc = value => ['Cache-Control', value]
const cdnCc = value => ['CDN-Cache-Control', value, false]
const simple = [
  ['cdn-fresh-cc-no-store', [cc('no-store'), cdnCc('max-age=10000')], 'cached'],
  ['cdn-fresh-cc-private', [cc('private'), cdnCc('max-age=10000')], 'cached'],
  ['cdn-private', [cc('max-age=10000'), cdnCc('private')], 'not_cached'],
  ['cdn-no-cache', [cc('max-age=10000'), cdnCc('no-cache')], 'not_cached'],
  ['cdn-max-age-0-cc', [cc('max-age=10000'), cdnCc('max-age=0')], 'not_cached'],
  ['cdn-invalid-is-ignored', [cc('max-age=10000'), cdnCc('max-age=0, &&&&&')], 'cached'],
  ['cdn-empty-is-ignored', [cc('max-age=10000'), cdnCc('')], 'cached'],
  ['cdn-unknown-directive-counts', [cc('max-age=10000'), cdnCc('foobar')], 'not_cached'],
  ['cdn-expires-is-ignored', [['Expires', 10000], ['Date', 0], cdnCc('foobar')], 'not_cached']
].map(([id, fields, expected]) => ({ name: id, id, requests: response(fields, expected) }))

// RFC 9111 §5.1: the first member counts, and a value that is no number is ignored.
const age = ageParse.tests.map(test => {
  const made = copy(test)
  made.id = test.id.replace('age-parse', 'rfc9111-age')
  made.depends_on = undefined
  const old = /^\s*7200\s*(,|$)/.test(test.requests[0].response_headers.find(([name]) => name === 'Age')[1])
  made.requests[1].expected_type = old ? 'not_cached' : 'cached'
  return made
})

// RFC 9110 §14.4: `bytes 4-9/10` are six octets, not five; RFC 9111 §3.4: only with a strong validator.
const ranges = partial.tests.filter(test => /^partial-store-partial/.test(test.id)).map(test => {
  const made = JSON.parse(JSON.stringify(test).replaceAll('bytes 4-9/10', 'bytes 5-9/10'))
  made.id = test.id.replace('partial-', 'rfc9111-partial-')
  for (const request of made.requests) {
    if (request.response_headers) request.response_headers.push(['ETag', '"abc"'])
  }
  // Six to eight of `5…9` are the second to the fourth octet.
  const texts = { '234': '123', '4': '4' }
  const second = made.requests[1]
  if (second.expected_response_text in texts) second.expected_response_text = texts[second.expected_response_text]
  if (/absent/.test(test.id)) second.expected_response_text = '1234'
  if (/partial-complete/.test(test.id)) {
    second.response_status = [206, 'Partial Content']
    second.response_headers = [['Cache-Control', 'max-age=3600'], ['Content-Range', 'bytes 5-9/10', false], ['ETag', '"abc"']]
    second.response_body = '56789'
    second.expected_status = 200
    second.expected_response_text = '0123456789'
    made.requests.push({ expected_type: 'cached', expected_response_text: '0123456789' })
  }
  return made
})

// RFC 9111 §4.3.2: without Last-Modified, Date is compared.
const fresh = [['Cache-Control', 'max-age=10000'], ['Date', 0]]
const sinceDate = offset => [
  { response_headers: fresh, setup: true, pause_after: true },
  { request_headers: [['If-Modified-Since', offset]], magic_ims: true, expected_type: 'cached' }
]
const dates = [
  { name: 'If-Modified-Since as Date', id: 'rfc9111-ims-date', requests: sinceDate(0) },
  { name: 'If-Modified-Since before Date', id: 'rfc9111-ims-before-date', requests: sinceDate(-3000) }
]
dates[0].requests[1].expected_status = 304
dates[1].requests[1].expected_status = 200

// RFC 9111 §5.2.2.3: must-understand with no-store, and a status that is understood.
const understand = [{
  name: 'must-understand overrides no-store for a known status',
  id: 'rfc9111-must-understand',
  requests: response([cc('max-age=3600, must-understand, no-store')], 'cached')
}]

// RFC 9111 §5.2.2.2: stale, must-revalidate, and the origin server hangs up: 504, not the stored response.
const disconnected = ['must-revalidate', 'proxy-revalidate', 's-maxage=2', 'no-cache'].map(directive => ({
  name: `504 when ${directive} forbids a stale response`,
  id: `rfc9111-stale-close-${directive}`,
  requests: [
    { response_headers: [cc(`max-age=2, ${directive}`), ['ETag', '"abc"']], setup: true, pause_after: true },
    { disconnect: true, expected_status: 504, expected_response_text: null }
  ]
}))

// RFC 5861 §3, and RFC 9111 §4.3.5: what is stored keeps the fields that the response to HEAD does not have.
const later = [
  {
    name: 'stale-while-revalidate serves and validates',
    id: 'rfc5861-stale-while-revalidate',
    requests: [
      { response_headers: [cc('max-age=1, stale-while-revalidate=3600'), ['ETag', '"abc"']], setup: true, pause_after: true },
      { expected_type: 'cached' }
    ]
  },
  {
    name: 'not after the window of stale-while-revalidate',
    id: 'rfc5861-stale-while-revalidate-window',
    requests: [
      { response_headers: [cc('max-age=1, stale-while-revalidate=1'), ['ETag', '"abc"']], setup: true, pause_after: true },
      { expected_type: 'etag_validated', response_headers: [cc('max-age=1'), ['ETag', '"abc"']] }
    ]
  },
  {
    name: 'a response to HEAD updates, and leaves the rest',
    id: 'rfc9111-head-retain',
    requests: [
      { response_headers: [cc('max-age=2'), ['A', '1'], ['B', '1']], setup: true, pause_after: true },
      { request_method: 'HEAD', expected_method: 'HEAD', response_headers: [cc('max-age=1000'), ['B', '2']] },
      { expected_type: 'cached', expected_response_headers: [['A', '1'], ['B', '2']] }
    ]
  }
]
const ages = ['2147483647', '2147483648', '99999999999'].map(age => ({
  name: `an Age of ${age} is old`,
  id: `rfc9111-age-${age}`,
  requests: response([['Date', 0], cc('max-age=3600'), ['Age', age, false]], 'not_cached')
}))

export default [{ name: 'More', id: 'more', tests: [...cdn, ...simple, ...age, ...ranges, ...dates, ...understand, ...disconnected, ...later, ...ages] }]
