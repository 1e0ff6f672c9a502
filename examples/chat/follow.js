// Follows one task with the browser's own EventSource and keeps the text of its series.
//
// `show(text, status)` is called after every change. Returns a function that stops.
export function follow(url, series, show) {
  let text = ''
  let pause = 500
  let source, timer

  function open() {
    clearTimeout(timer)
    source?.close()
    // A new EventSource sends no cursor, so what it receives replaces what is there.
    let isFirst = true
    source = new EventSource(url)

    const read = (message) => {
      const frame = JSON.parse(message.data)
      // The server lost the place of this reader, or the task is another one: start over.
      if (isFirst || frame.reset) text = ''
      isFirst = false
      pause = 500
      return frame
    }

    source.addEventListener('taskcast.event', (message) => {
      const frame = read(message)
      const piece = frame.data?.[frame.seriesAccField ?? 'text']
      if (frame.seriesId === series && typeof piece === 'string') {
        text = frame.seriesSnapshot ? piece : text + piece
      }
      show(text, 'streaming')
    })

    source.addEventListener('taskcast.done', (message) => {
      const { reason } = read(message)
      source.close()
      show(text, reason)
      // Somebody may create the task again under its id.
      if (reason === 'deleted') again()
    })

    source.onerror = () => {
      // While it is CONNECTING, the browser reconnects by itself and sends Last-Event-ID.
      // After an answer of 4xx or 5xx it gives up for good, so a new one has to be made.
      if (source.readyState === EventSource.CLOSED) again()
    }
  }

  function again() {
    // Jitter keeps a thousand pages from coming back in the same moment.
    timer = setTimeout(open, pause * (0.5 + Math.random()))
    pause = Math.min(pause * 2, 10_000)
  }

  open()
  return () => {
    clearTimeout(timer)
    source.close()
  }
}
