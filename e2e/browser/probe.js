// What a student's eyes and ears do, inside the page: reads the counter that the publisher drew, the clock, the sound.
// The pattern is e2e/src/pattern.rs: the lowest third of the picture holds 16 × 2 cells, black or white: 24 bits of a frame counter, the
// highest first, then CRC-8 (polynomial 0x07) of its three bytes.
window.probe = (() => {
  const COLUMNS = 16, ROWS = 2, CELL = 10;
  const canvas = document.createElement('canvas');
  canvas.width = COLUMNS * CELL;
  canvas.height = ROWS * CELL;
  const pen = canvas.getContext('2d', { willReadFrequently: true });

  const crc8 = (counter) => {
    let crc = 255; // a picture that is dark all over has no counter
    for (const byte of [(counter >> 16) & 255, (counter >> 8) & 255, counter & 255]) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 128 ? 7 : 0)) & 255;
    }
    return crc;
  };

  // The counter in the picture that `video` shows now, and how clear its least clear cell is (0 to 127); counter null if it does not check.
  const read = (video) => {
    const { videoWidth: width, videoHeight: height } = video;
    if (!width) return { counter: null, margin: 0 };
    pen.drawImage(video, 0, (height * 2) / 3, width, height / 3, 0, 0, canvas.width, canvas.height);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    let bits = 0n, margin = 127;
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        let sum = 0;
        for (let y = 3; y < 7; y++) for (let x = 3; x < 7; x++) sum += data[4 * ((row * CELL + y) * canvas.width + column * CELL + x) + 1];
        const mean = sum / 16;
        bits = (bits << 1n) | (mean > 127.5 ? 1n : 0n);
        margin = Math.min(margin, Math.abs(mean - 127.5));
      }
    }
    const counter = Number(bits >> 8n);
    return { counter: crc8(counter) === Number(bits & 255n) ? counter : null, margin: Math.round(margin) };
  };

  const player = () => window.lectern;
  const now = () => performance.timeOrigin + performance.now(); // milliseconds since 1970, as the publisher's clock

  // Throws where the player has given up.
  const goesOn = () => { const failed = player()?.failed; if (failed) throw new Error(`the player gave up: ${failed}`); };

  // Seconds of media that the player has from where it is on.
  const inHand = ({ currentTime, buffered }) => {
    for (let i = 0; i < buffered.length; i++) if (buffered.start(i) <= currentTime && currentTime <= buffered.end(i)) return buffered.end(i) - currentTime;
    return 0;
  };

  // Calls `look` at every shown frame until it returns something; throws after `withinMs` with what `seen()` says.
  const atFrames = (video, withinMs, look, seen) => new Promise((resolve, reject) => {
    let over = false;
    const end = (how, what) => { over = true; clearTimeout(timer); clearInterval(gone); how(what); };
    const timer = setTimeout(() => end(reject, new Error(`not within ${withinMs} ms: ${seen()}`)), withinMs);
    const gone = setInterval(() => { try { goesOn(); } catch (error) { end(reject, error); } }, 100);
    const frame = (_, meta) => {
      if (over) return;
      try {
        const found = look({ at: now(), mediaTime: meta.mediaTime, presented: meta.presentedFrames, inHand: inHand(video), ...read(video) });
        if (found !== undefined) return end(resolve, found);
      } catch (error) { return end(reject, error); }
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
  });

  // Calls `look` until it returns something; throws after `withinMs` with what `seen()` says.
  const until = async (withinMs, look, seen) => {
    const end = performance.now() + withinMs;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      goesOn();
      if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${seen()}`);
      await new Promise((next) => setTimeout(next, 50));
    }
  };

  const state = () => {
    const { hls, video } = player() ?? {};
    if (!video) return { player: false };
    const ranges = (r) => Array.from({ length: r.length }, (_, i) => [r.start(i), r.end(i)]);
    return {
      currentTime: video.currentTime, readyState: video.readyState, paused: video.paused, ended: video.ended, error: video.error?.message ?? null,
      size: [video.videoWidth, video.videoHeight], buffered: ranges(video.buffered), seekable: ranges(video.seekable),
      level: hls?.currentLevel, levels: hls?.levels?.map((l) => `${l.width}x${l.height} ${l.codecSet ?? l.videoCodec}`), url: hls?.url,
    };
  };
  const seen = () => JSON.stringify(state());

  // The video renditions that the player offers, whichever it is; each with what that player knows it by.
  const offered = () => {
    const { hls, shaka, dash } = player();
    if (hls) return hls.levels.map((level) => ({ ...size(level), bitrate: level.bitrate, codecs: level.attrs?.CODECS ?? '' }));
    if (dash) return dash.getRepresentationsByType('video').map((it) => ({ ...size(it), bitrate: it.bandwidth, codecs: it.codecs ?? '', own: it.id }));
    return shaka.getVariantTracks().filter((it) => it.height).map((it) => ({ ...size(it), bitrate: it.bandwidth, codecs: it.codecs ?? '', own: it }));
  };
  const size = ({ width, height }) => ({ width, height });
  // Asks for one of them, after what is buffered of another.
  const choose = (index) => {
    const { hls, shaka, dash } = player();
    if (hls) { hls.currentLevel = index; return; }
    const { own } = offered()[index];
    if (dash) {
      dash.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
      dash.setRepresentationForTypeById('video', own);
    } else {
      shaka.configure('abr.enabled', false);
      shaka.selectVariantTrack(own);
    }
  };

  // The publisher's data messages, as the player tells the page's scripts: hls.js by cues, others by events (watch.mjs).
  const said = () => {
    const { hls, video, said } = player();
    if (!hls) return said;
    const cues = [...video.textTracks].filter((track) => track.kind === 'metadata').flatMap((track) => [...(track.cues ?? [])]);
    return cues.filter(({ value }) => value?.key === 'TXXX').map(({ value, startTime }) => ({ name: value.info, value: value.data, time: startTime }));
  };

  const troubles = {
    busyPage: () => { for (const end = performance.now() + 1000; performance.now() < end;); },
    pause: (video) => { video.pause(); setTimeout(() => video.play(), 1000); },
  };

  const dropped = (video) => video.getVideoPlaybackQuality().droppedVideoFrames;

  // One AudioContext and one tap per media element: an element can be tapped once in its life.
  const taps = new WeakMap();
  let context;
  const tap = async (element) => {
    context ??= new AudioContext();
    await context.resume();
    element.muted = false;
    element.volume = 1;
    if (!taps.has(element)) {
      const analyser = context.createAnalyser();
      analyser.fftSize = 8192;
      context.createMediaElementSource(element).connect(analyser);
      analyser.connect(context.destination);
      taps.set(element, analyser);
    }
    return taps.get(element);
  };
  const hear = async (element, withinMs) => {
    const analyser = await tap(element);
    const wave = new Float32Array(analyser.fftSize), spectrum = new Float32Array(analyser.frequencyBinCount);
    let heard = { level: 0, hertz: 0 }, looks = 0;
    return until(withinMs, () => {
      analyser.getFloatTimeDomainData(wave);
      analyser.getFloatFrequencyData(spectrum);
      const level = Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
      const peak = spectrum.indexOf(Math.max(...spectrum));
      heard = { level, hertz: (peak * context.sampleRate) / analyser.fftSize };
      // For longer than the window: of one that is half silence the spectrum says little.
      looks = level > 0.01 && element.currentTime > 0 ? looks + 1 : 0;
      return looks > 5 ? heard : undefined;
    }, () => `heard ${JSON.stringify(heard)}, ${seen()}`);
  };

  // Runs in the page's audio thread: says when, by its clock, something begins to be heard after 0.3 s of silence; and now and then what that clock says.
  const LISTENER = `registerProcessor('listener', class extends AudioWorkletProcessor {
    quiet = 0;
    process([[samples]]) {
      if (currentFrame % 2048 === 0) this.port.postMessage({ clock: currentTime });
      for (let i = 0; i < (samples?.length ?? 0); i++) {
        if (Math.abs(samples[i]) < 0.02) { this.quiet++; continue; }
        if (this.quiet > 0.3 * sampleRate) this.port.postMessage({ onset: currentTime + i / sampleRate });
        this.quiet = 0;
      }
      return true;
    }
  })`;
  const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

  return {
    state,

    // Waits for the first frame that carries a counter.
    firstFrame: ({ withinMs }) => {
      const { video } = player();
      video.play().catch(() => {});
      return atFrames(video, withinMs, (frame) => (frame.counter === null ? undefined : frame), seen);
    },

    // Waits until the picture has moved on for `steadyMs` without a seek, a stall or a player that catches up by more than `drift`.
    playing: async ({ withinMs, steadyMs = 2000, drift = 0 }) => {
      const { video } = player();
      let since = { at: now(), time: video.currentTime };
      const again = () => { since = { at: now(), time: video.currentTime }; };
      for (const event of ['seeking', 'seeked', 'waiting', 'playing', 'loadeddata']) video.addEventListener(event, again);
      video.play().catch(() => {});
      try {
        await until(withinMs, () => (video.currentTime - since.time > steadyMs / 1000 && Math.abs(video.playbackRate - 1) <= drift ? true : undefined), seen);
      } finally {
        for (const event of ['seeking', 'seeked', 'waiting', 'playing', 'loadeddata']) video.removeEventListener(event, again);
      }
      return state();
    },

    // Watches for `seconds`: every frame shown, the clocks at both ends, stalls and dropped frames between.
    // After the first second, `trouble` for one.
    sample: async ({ seconds, trouble }) => {
      const { video } = player();
      const frames = [];
      const waits = [];
      const stall = () => waits.push({ at: now(), inHand: inHand(video), ...state() });
      video.addEventListener('waiting', stall);
      if (trouble) setTimeout(troubles[trouble], 1000, video);
      const from = { at: now(), time: video.currentTime, dropped: dropped(video) };
      try {
        await atFrames(video, seconds * 1000 + 10_000, (frame) => {
          frames.push([frame.at, frame.mediaTime, frame.counter, frame.margin, frame.presented, frame.inHand]);
          return frame.at - from.at >= seconds * 1000 ? true : undefined;
        }, () => `${frames.length} frames came, ${seen()}`);
      } finally {
        video.removeEventListener('waiting', stall);
      }
      const to = { at: now(), time: video.currentTime, dropped: dropped(video) };
      return {
        rate: (to.time - from.time) / ((to.at - from.at) / 1000), seconds: (to.at - from.at) / 1000,
        dropped: to.dropped - from.dropped, waits, frames, level: player().hls?.currentLevel ?? null,
      };
    },

    renditions: () => ({
      video: offered().map(({ width, height, bitrate, codecs }, index) => ({ index, width, height, bitrate, codecs })),
      audio: (player().hls?.audioTracks ?? []).map((track, index) => ({ index, name: track.name, url: track.url })),
    }),

    // Switches to a rendition and waits for `frames` of its frames, each with a counter that is not less than the last. They have the size that
    // the playlist says, unless `anySize`.
    select: async ({ index, frames = 30, anySize = false, withinMs }) => {
      const { hls, video } = player();
      const { height, width } = offered()[index];
      choose(index);
      video.play().catch(() => {});
      let shown = [], unread = 0;
      await atFrames(video, withinMs, (frame) => {
        if ((hls && hls.currentLevel !== index) || (!anySize && video.videoHeight !== height)) { shown = []; unread = 0; return undefined; }
        if (frame.counter === null) unread += 1; else shown.push(frame.counter);
        return shown.length >= frames ? true : undefined;
      }, () => `wanted ${width}x${height}, ${shown.length} frames came, ${unread} unread, ${seen()}`);
      const ordered = shown.every((counter, i) => i === 0 || counter >= shown[i - 1]);
      return { width: video.videoWidth, height: video.videoHeight, first: shown[0], last: shown.at(-1), unread, ordered };
    },

    automatic: () => { player().hls.currentLevel = -1; },

    // Loads a part of another rendition in the middle of `times` segments and goes back within each, as an ABR that changes its mind; what hls.js could
    // not play on over then, in its words. Segments that end meanwhile do not count.
    hesitate: async ({ times, withinMs }) => {
      const { hls } = player();
      const holes = [], home = hls.loadLevel, other = home === 0 ? 1 : 0;
      let away = null, last = null, done = 0;
      const loaded = (_, { frag, part }) => {
        if (!part || frag.type !== 'main') return;
        if (away !== null && frag.level === other) {
          if (frag.sn === away) done += 1;
          away = null;
          hls.loadLevel = home;
        } else if (away === null && frag.level === home && frag.sn !== last && part.index === 1) {
          last = away = frag.sn;
          hls.loadLevel = other;
        }
      };
      const trouble = (_, { details, reason, error }) => { if (/SeekOverHole|NudgeOnStall/.test(details)) holes.push(`${details}: ${reason ?? error?.message}`); };
      hls.on('hlsFragBuffered', loaded);
      hls.on('hlsError', trouble);
      try {
        await until(withinMs, () => (done >= times ? true : undefined), () => `${done} times there and back, ${seen()}`);
        const shown = player().video.currentTime;
        await until(withinMs, () => (player().video.currentTime > shown + 3 ? true : undefined), seen);
      } finally {
        hls.off('hlsFragBuffered', loaded);
        hls.off('hlsError', trouble);
        hls.loadLevel = -1;
      }
      return holes;
    },

    sound: ({ withinMs }) => hear(player().video, withinMs),

    // By how many milliseconds the sound is later than its picture, of `beeps` beeps: each is the sound of a picture whose counter is a multiple of 30,
    // published at 30 a second. Both are taken by the element's clock, which decides what is shown when: a picture's time is its own, and a sound's is
    // what that clock says when the element gives it to the audio thread (in steps of 10 ms).
    soundAfterPicture: async ({ beeps, withinMs }) => {
      const { video } = player();
      const tapped = await tap(video);
      await context.audioWorklet.addModule(URL.createObjectURL(new Blob([LISTENER], { type: 'text/javascript' })));
      const listener = new AudioWorkletNode(context, 'listener');
      const pictures = [], clock = [], onsets = [];
      let ahead = Infinity; // from the audio thread's clock to the page's: a message takes some time, and the fastest hardly any
      listener.port.onmessage = ({ data: { clock: thread, onset } }) => {
        const at = performance.now();
        clock.push({ at, time: video.currentTime * 1000 });
        if (thread !== undefined) ahead = Math.min(ahead, at - thread * 1000);
        if (onset !== undefined) onsets.push(onset * 1000);
      };
      let over = false;
      const frame = (_, { mediaTime }) => {
        const { counter } = read(video);
        if (counter !== null) pictures.push({ at: performance.now(), begun: mediaTime * 1000 - (counter * 1000) / 30 });
        if (!over) video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback(frame);
      tapped.connect(listener);
      try {
        await until(withinMs, () => (onsets.length > beeps + 1 ? true : undefined), () => `${onsets.length} beeps, ${pictures.length} pictures, ${seen()}`);
      } finally {
        over = true;
        tapped.disconnect(listener);
      }
      return onsets.slice(1, -1).map((onset) => {
        const heard = onset + ahead;
        const around = (values) => values.filter(({ at }) => Math.abs(at - heard) < 500);
        const time = heard + median(around(clock).map((it) => it.time - it.at));
        const off = (((time - median(around(pictures).map((it) => it.begun))) % 1000) + 1000) % 1000;
        return Math.round(off > 500 ? off - 1000 : off);
      });
    },

    // What the publisher has said, once `messages` of its data messages have come, and when its picture zero was to be shown.
    told: async ({ messages, withinMs }) => {
      const { video } = player();
      const begun = [];
      await atFrames(video, withinMs, ({ mediaTime, counter }) => {
        if (counter !== null) begun.push(mediaTime - counter / 30);
        return begun.length > 15 && said().length >= messages ? true : undefined;
      }, () => `${JSON.stringify(said())} came, ${begun.length} pictures, ${seen()}`);
      return { zero: median(begun), said: said() };
    },

    // Turns on the text that the player offers, until `captions` captions of the publisher's (`caption N`, captioner.rs) were shown: each with its number and the
    // counter of the picture at which it begins. Not of that which it came up with: text of a low-latency playlist comes after its pictures.
    captions: async ({ captions, withinMs }) => {
      const { hls, shaka, video } = player();
      const tracks = () => (hls ? hls.subtitleTracks : shaka.getTextTracks());
      await until(withinMs, () => (tracks().length > 0 ? true : undefined), () => `no text is offered, ${seen()}`);
      if (hls) hls.subtitleTrack = 0; else shaka.selectTextTrack(tracks()[0]);
      shaka?.setTextVisibility?.(true);
      const shown = new Map();
      const there = () => [...video.textTracks].map(({ kind, mode, cues }) => [kind, mode, [...(cues ?? [])].slice(-5).map(({ startTime, endTime, text }) => [startTime, endTime, text])]);
      await atFrames(video, withinMs, ({ counter, mediaTime }) => {
        for (const { text, startTime } of [...video.textTracks].flatMap((track) => [...(track.activeCues ?? [])])) {
          const number = /caption (\d+)/.exec(text)?.[1];
          // One that lasts beyond its segment is cut, and its second half begins where the segment does.
          if (number && counter !== null && !shown.has(number)) shown.set(number, counter + Math.round((startTime - mediaTime) * 30));
        }
        return shown.size > captions ? true : undefined;
      }, () => `${JSON.stringify([...shown])} of ${JSON.stringify(there())}, ${seen()}`);
      // The first that is met may be a second half.
      return [...shown].slice(1).map(([number, picture]) => [Number(number), picture]);
    },

    // Plays one playlist in an element of its own beside the player: for renditions without a picture.
    listen: async ({ url, withinMs }) => {
      const element = document.body.appendChild(document.createElement('video'));
      const hls = new (player().hls.constructor)();
      try {
        hls.loadSource(url);
        hls.attachMedia(element);
        element.play().catch(() => {});
        return await hear(element, withinMs);
      } finally {
        hls.destroy();
        element.remove();
      }
    },

    // Goes to `to` seconds after the earliest point and reads the picture there, without playing.
    seek: async ({ to = 0, withinMs }) => {
      const { video } = player();
      await until(withinMs, () => (video.seekable.length > 0 && video.readyState >= 1 ? true : undefined), seen);
      video.pause();
      video.currentTime = video.seekable.start(0) + to;
      const found = await until(withinMs, () => {
        if (video.seeking || video.readyState < 2) return undefined;
        const picture = read(video);
        return picture.counter === null ? undefined : picture;
      }, seen);
      return { ...found, currentTime: video.currentTime, start: video.seekable.start(0), end: video.seekable.end(video.seekable.length - 1) };
    },

    // Waits for the end of what is played.
    ended: ({ withinMs }) => until(withinMs, () => (player().video.ended ? state() : undefined), seen),

    // Waits until so much of the media is played.
    reaches: ({ seconds, withinMs }) => until(withinMs, () => (player().video.currentTime >= seconds ? state() : undefined), seen),
  };
})();
