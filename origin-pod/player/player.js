// The player page of one run: /watch/{h}/{namespace}/{name}/{run}. It waits for the lecture, plays it, and goes over to
// the recording. Its states, each with what leads out of it:
//
//   waiting ──live.m3u8──▶ live ──end of the playlist──▶ ended ──vod.m3u8──▶ recording
//      └────────────────────vod.m3u8────────────────────────────────────────────▲
'use strict';
(() => {
  const [, , h, namespace, name, run] = location.pathname.split('/');
  const base = `/${h}/${namespace}/${name}/${run}/`;
  const POLL_MS = 2000;
  const BEHIND_S = 12; // more than this behind the lecture is no longer "live"

  const $ = (id) => document.getElementById(id);
  const video = $('video');
  const Hls = window.Hls;
  const usesHls = Boolean(Hls && Hls.isSupported());
  const native = !usesHls && video.canPlayType('application/vnd.apple.mpegurl') !== '';

  let mode = 'waiting';
  let hls = null;
  let source = null; // what is loaded now
  let audioSource = null; // the media playlist of the sound alone
  let polling = null;
  let mediaErrors = 0;
  let retry = null;

  window.lectern = { hls, video };

  $('title').textContent = decodeURIComponent(name);
  $('school').textContent = decodeURIComponent(namespace);
  document.title = `${decodeURIComponent(name)} · Lectern`;

  // ---- what the page shows ----

  function badge(kind, text) {
    $('badge').dataset.mode = kind;
    if ($('badge-text').textContent !== text) $('badge-text').textContent = text;
  }

  function cover(title, text, { busy = false, action = null, label = '' } = {}) {
    $('cover').hidden = false;
    $('cover-title').textContent = title;
    $('cover-text').textContent = text;
    $('spinner').hidden = !busy;
    $('cover-action').hidden = !action;
    $('cover-action').textContent = label;
    $('cover-action').onclick = action;
    video.controls = false; // covered controls must not take the keyboard
    if (action) $('cover-action').focus();
  }

  function uncover() {
    $('cover').hidden = true;
    video.controls = true;
  }

  function note(text) {
    if ($('note').textContent !== text) $('note').textContent = text;
  }

  // ---- the states ----

  function wait() {
    mode = 'waiting';
    unload();
    badge('waiting', 'Waiting');
    cover('Waiting for the lecturer', 'The lecture starts here by itself.', { busy: true });
    poll();
  }

  function playLive() {
    mode = 'live';
    note('');
    badge('live', 'LIVE');
    uncover();
    load(base + 'live.m3u8');
  }

  function ended() {
    if (mode !== 'live') return;
    mode = 'ended';
    unload();
    badge('recording', 'Ended');
    $('go-live').hidden = true;
    $('quality-label').hidden = true;
    cover('The lecture has ended', 'The recording is being prepared. It appears here by itself.', { busy: true });
    poll();
  }

  function offerRecording() {
    mode = 'recording';
    note('');
    badge('recording', 'Recording');
    uncover();
    load(base + 'vod.m3u8', { autoplay: false });
    cover('The lecture has ended', 'You can watch the recording from its beginning.', {
      label: 'Watch the recording',
      action: () => { uncover(); video.focus(); play(); },
    });
  }

  function fail(title, text) {
    mode = 'failed';
    unload();
    badge('trouble', 'Trouble');
    cover(title, text, { label: 'Try again', action: wait });
  }

  // Who asks may not watch, or not any more: the link has run out.
  class Shut extends Error {}

  // Looks for the playlists until one of them leads on. A recording goes before a live playlist: a run that has one is
  // over. One timer at a time, so that a slow answer is never asked for twice.
  async function poll() {
    clearTimeout(polling);
    const asked = mode;
    const found = async (file) => {
      const answer = await fetch(base + file, { cache: 'no-store' });
      if (answer.ok) return true;
      if (answer.status === 404) return false;
      if (answer.status === 403) throw new Shut((await answer.json()).reason);
      throw new Error(`the server answered ${answer.status}`);
    };
    try {
      if (await found('vod.m3u8')) return void (mode === asked && offerRecording());
      if (asked === 'waiting' && (await found('live.m3u8'))) return void (mode === asked && playLive());
      note('');
    } catch (error) {
      if (error instanceof Shut) return fail('This lecture needs a link', `${error.message[0].toUpperCase()}${error.message.slice(1)}.`);
      note(`The server cannot be reached (${error.message}). Trying on.`);
    }
    if (mode === asked) polling = setTimeout(poll, POLL_MS);
  }

  // ---- playing ----

  function unload() {
    clearTimeout(retry);
    if (hls) hls.destroy();
    hls = window.lectern.hls = null;
    source = null;
    $('listening').hidden = true;
    if (native) { video.removeAttribute('src'); video.load(); }
  }

  function load(url, { autoplay = true, startPosition = -1 } = {}) {
    unload();
    source = url;
    if (usesHls) {
      // An origin whose machine is gone refuses nothing; the next try comes to another.
      const patient = (firstByteMs, allMs) => ({
        default: {
          maxTimeToFirstByteMs: firstByteMs, maxLoadTimeMs: allMs,
          timeoutRetry: { maxNumRetry: 12, retryDelayMs: 0, maxRetryDelayMs: 0 },
          errorRetry: { maxNumRetry: 12, retryDelayMs: 500, maxRetryDelayMs: 4000, backoff: 'exponential' },
        },
      });
      hls = new Hls({
        startPosition,
        debug: new URLSearchParams(location.search).has('debug'), // to the console
        // How far behind the end to play is the playlist's to say: three parts, or three segments.
        maxLiveSyncPlaybackRate: 1.03, // catches up after a stall, too little to be heard
        // Of a recording. Of a lecture the browser lets go what it has no room for: hls.js 1.7, where it tidies up behind the playhead itself, forgets which
        // parts of the open segment it has, and stands still until that segment's parts are named no more.
        backBufferLength: mode === 'recording' ? 60 : Infinity,
        manifestLoadPolicy: patient(5000, 15_000),
        playlistLoadPolicy: patient(3000, 24_000), // a playlist that is held back for longer, for want of something new, is asked for again
        fragLoadPolicy: patient(3000, 24_000),
      });
      window.lectern.hls = hls;
      hls.on(Hls.Events.MANIFEST_PARSED, fillQualities);
      hls.on(Hls.Events.LEVEL_SWITCHING, forgetParts);
      hls.on(Hls.Events.LEVEL_SWITCHED, showQuality);
      hls.on(Hls.Events.FRAG_BUFFERED, () => { mediaErrors = 0; if (mode === 'live') note(''); });
      hls.on(Hls.Events.ERROR, onError);
      hls.loadSource(url);
      hls.attachMedia(video);
    } else if (native) {
      video.src = url;
    } else {
      return fail('This browser cannot play the lecture', Hls ? 'It lacks Media Source Extensions. A current browser has them.'
        : 'The player could not be loaded.');
    }
    if (autoplay) play();
  }

  // A rendition that is come back to begins at a keyframe again. hls.js 1.7 would go on behind the parts that it had loaded of it before another's took
  // the decoder over, and the browser drops pictures up to the next keyframe: a hole, in which it stands still.
  function forgetParts(_, { details }) {
    for (const part of details?.partList ?? []) part.clearElementaryStreamInfo();
  }

  // Browsers let a page play sound only after somebody touched it.
  async function play() {
    try {
      await video.play();
    } catch (error) {
      if (error.name !== 'NotAllowedError') return;
      video.muted = true;
      $('unmute').hidden = false;
      video.play().catch(() => note('Press play to start.'));
    }
  }

  function onError(_, data) {
    if (!data.fatal) return;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && mediaErrors++ < 3) return hls.recoverMediaError();
    if (data.type !== Hls.ErrorTypes.NETWORK_ERROR) {
      return fail('The lecture cannot be played', `The browser's decoder gave up (${data.details}).`);
    }
    if (mode !== 'live') return fail('The recording cannot be loaded', `The server does not answer as it should (${data.details}).`);
    // The lecture may be over, or its server may come back: start anew from the first step.
    badge('trouble', 'Reconnecting');
    note('The connection to the lecture is lost. Trying on.');
    clearTimeout(retry);
    retry = setTimeout(wait, POLL_MS);
  }

  // ---- qualities ----

  function option(value, text) {
    const item = document.createElement('option');
    item.value = value;
    item.textContent = text;
    return item;
  }

  function fillQualities() {
    if (source === audioSource) return; // the menu stays as it was, with "audio only" chosen
    const sound = hls.audioTracks[0] || hls.allAudioTracks?.[0];
    audioSource = sound?.url || null;
    const levels = hls.levels.map((level, at) => ({ level, at })).sort((a, b) => b.level.bitrate - a.level.bitrate);
    const items = [option('auto', 'Auto')];
    for (const { level, at } of levels) {
      const rate = `${(level.averageBitrate || level.bitrate) / 1e6 >= 1 ? ((level.averageBitrate || level.bitrate) / 1e6).toFixed(1) + ' Mbit/s'
        : Math.round((level.averageBitrate || level.bitrate) / 1e3) + ' kbit/s'}`;
      items.push(option(String(at), level.height ? `${level.height}p · ${rate}` : rate));
    }
    if (audioSource && levels.some(({ level }) => level.height)) items.push(option('audio', 'Audio only'));
    $('quality').replaceChildren(...items);
    $('quality').value = 'auto';
    $('quality-label').hidden = false;
  }

  function showQuality() {
    if (!hls || source === audioSource || $('quality').options.length === 0) return;
    const now = hls.levels[hls.currentLevel];
    $('quality').options[0].textContent = now && now.height && hls.autoLevelEnabled ? `Auto (${now.height}p)` : 'Auto';
  }

  $('quality').addEventListener('change', () => {
    const wanted = $('quality').value;
    const recording = mode === 'recording';
    const startPosition = recording ? video.currentTime : -1;
    if (wanted === 'audio') {
      load(audioSource, { startPosition });
      $('listening').hidden = false;
    } else if (source === audioSource) {
      load(base + (recording ? 'vod.m3u8' : 'live.m3u8'), { startPosition });
      if (wanted !== 'auto') {
        hls.once(Hls.Events.MANIFEST_PARSED, () => { hls.nextLevel = Number(wanted); $('quality').value = wanted; });
      }
    } else {
      hls.nextLevel = wanted === 'auto' ? -1 : Number(wanted);
      showQuality();
    }
  });

  // ---- being live ----

  // Seconds between the lecturer and what is on the screen: by the playlist's clock, else to the end of the playlist.
  function behind() {
    const shown = hls?.playingDate ?? (native && video.getStartDate ? new Date(video.getStartDate().getTime() + video.currentTime * 1000) : null);
    const seconds = shown ? (Date.now() - shown.getTime()) / 1000 : NaN;
    if (seconds >= 0 && seconds < 6 * 3600) return seconds;
    return hls && Number.isFinite(hls.latency) ? hls.latency : NaN;
  }

  function goLive() {
    const edge = hls ? hls.liveSyncPosition : video.seekable.length ? video.seekable.end(video.seekable.length - 1) : null;
    if (edge != null) video.currentTime = edge;
    play();
    video.focus();
  }

  function isOver() {
    const details = hls?.latestLevelDetails ?? hls?.levels[hls.currentLevel]?.details;
    return Boolean(details && !details.live);
  }

  setInterval(() => {
    if (mode !== 'live') return;
    const seconds = behind();
    const target = hls?.targetLatency || 0;
    const away = (hls && hls.latency > target + BEHIND_S) || (video.paused && video.readyState > 2);
    const shown = Number.isFinite(seconds) ? ` · ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s behind` : '';
    if (away) badge('behind', seconds >= 90 ? `${Math.round(seconds / 60)} min behind` : `Behind${shown.replace(' behind', '')}`);
    else if ($('badge').dataset.mode !== 'trouble' || !video.paused) badge('live', `LIVE${shown}`);
    $('go-live').hidden = !away || isOver();
  }, 500);

  video.addEventListener('ended', () => (mode === 'live' ? ended() : undefined));
  video.addEventListener('waiting', () => { if (mode === 'live' && isOver() && video.duration - video.currentTime < 0.5) ended(); });
  video.addEventListener('error', () => {
    if (!native || mode === 'waiting' || mode === 'ended') return;
    if (mode === 'live') setTimeout(wait, POLL_MS); else fail('The recording cannot be played', 'The browser gave up on it.');
  });
  video.addEventListener('volumechange', () => { if (!video.muted) $('unmute').hidden = true; });
  $('unmute').addEventListener('click', () => { video.muted = false; $('unmute').hidden = true; video.focus(); });
  $('go-live').addEventListener('click', goLive);

  if (usesHls || native) wait();
  else fail('This browser cannot play the lecture', Hls ? 'It lacks Media Source Extensions. A current browser has them.' : 'The player could not be loaded.');
})();
