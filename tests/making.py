"""Clips made for tests."""

from fractions import Fraction

import av
import numpy as np

from nstlab.pictures import images as im


def make_clip(
    path,
    pictures,
    rate=10,
    codec="libx264",
    pix_fmt="yuv420p",
    sound=None,
    times=None,
    aspect=None,
    options=None,
    container=None,
    seconds=None,
):
    """A video file of (1, 3, H, W) pictures; a rotation would be told by the container. sound: the
    codec of a tone of so many seconds, by default as long as the pictures are."""
    with av.open(str(path), "w", options=container or {}) as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width = pictures[0].shape[-2:]
        video.pix_fmt = pix_fmt
        tick = Fraction(1, 1000) if times else Fraction(1, rate)
        video.time_base = video.codec_context.time_base = tick
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        tone = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_image(im.to_pil(picture))
            frame.pts, frame.time_base = round(times[i] / tick) if times else i, tick
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if tone:
            end = len(pictures) / rate if seconds is None else seconds
            wave = (
                8000 * np.sin(2 * np.pi * 440 * np.arange(round(48_000 * end)) / 48_000)
            ).astype(np.int16)
            resampler = av.AudioResampler(
                tone.format, tone.layout, tone.rate, frame_size=tone.codec_context.frame_size or 960
            )
            frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
            frame.sample_rate, frame.pts = 48_000, 0
            for each in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(tone.encode(each))
            container.mux(tone.encode())
    return path


def told(path):
    """What a file says: (frames, seconds of pictures, codecs, seconds of sound)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        codecs = [stream.codec_context.name for stream in container.streams]
        length = frames[-1].time + frames[-1].duration * float(frames[-1].time_base)
    sound = 0.0
    if len(codecs) > 1:
        with av.open(str(path)) as container:
            sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return len(frames), length, codecs, sound
