#!/bin/sh
# Makes the compressed tones that crates/clapd-core/tests/suite/decode.rs reads: 1 kHz at half of full scale, nothing else.
# Needs ffmpeg with libopus, libvorbis and libmp3lame, and opusdec (opus-tools). Run it in this directory; the files are committed.
set -eu
tone() { # file rate channels seconds encoder...
    file=$1 rate=$2 channels=$3 seconds=$4
    shift 4
    # An expression a channel: -ac would mix, and change the level.
    sine="0.5*sin(2*PI*1000*t)"
    if [ "$channels" = 2 ]; then sine="$sine|$sine"; fi
    ffmpeg -v error -y -f lavfi -i "aevalsrc=$sine:s=$rate:d=$seconds" -fflags +bitexact \
        -flags:a +bitexact -map_metadata -1 "$@" "$file"
}
tone tone-48000-2.flac 48000 2 0.5 -c:a flac -sample_fmt s16
tone tone-96000-1-24bit.flac 96000 1 0.08 -c:a flac -sample_fmt s32 -bits_per_raw_sample 24
tone tone-44100-2.ogg 44100 2 0.5 -c:a libvorbis -q:a 2
tone tone-16000-1.ogg 16000 1 0.5 -c:a libvorbis -q:a 2
tone tone-44100-2.mp3 44100 2 0.5 -c:a libmp3lame -b:a 64k
tone tone-16000-1.mp3 16000 1 0.5 -c:a libmp3lame -b:a 32k
tone tone-16000-1.opus 16000 1 0.5 -c:a libopus -b:a 16k
tone tone-48000-2.webm 48000 2 0.5 -c:a libopus -b:a 64k
tone tone-44100-2.m4a 44100 2 0.5 -c:a aac -b:a 64k -movflags +faststart
tone tone-16000-1.aac 16000 1 0.5 -c:a aac -b:a 32k
tone tone-16000-1.caf 16000 1 0.1 -c:a alac
tone tone-16000-1.aiff 16000 1 0.1 -c:a pcm_s16be
# What libopus's own program hears in the Opus file, of which ours may differ by rounding.
opusdec --quiet --force-wav --no-dither --rate 48000 tone-16000-1.opus - | ffmpeg -v error -y -i - -c:a flac -compression_level 12 \
    -map_metadata -1 -fflags +bitexact -flags +bitexact tone-16000-1.opus.flac
