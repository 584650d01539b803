/* A sound card for tests, as a plugin of ALSA's: it offers one rate, one format and one channel count and nothing else, as
 * hardware does, and misbehaves as told.
 *
 *   pcm.NAME { type testcard rate 48000 channels 2 format S24_3LE samples "FILE" true_rate 44100 gone_after_s 3 owner "FILE" }
 *
 * samples: what it hears, in its own format, over and over; silence without.
 * true_rate: frames that it really makes in a second.
 * gone_after_s: it is unplugged then.
 * owner: a file that it locks while it is open; a second one that has the same finds the card busy. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>

struct card {
    snd_pcm_ioplug_t plug;
    long rate, channels, true_rate, gone_after_s;
    snd_pcm_format_t format;
    size_t frame_bytes;
    const unsigned char *samples; /* mapped */
    size_t length, place;         /* in frames */
    int owner, timer, gone;
    int64_t started_ns;
    uint64_t taken; /* frames, since the start */
};

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint64_t made(const struct card *card) {
    if (card->started_ns == 0) return 0;
    return (uint64_t)((double)(now_ns() - card->started_ns) * 1e-9 * (double)card->true_rate);
}

/* Once gone, it stays so, like a card whose plug was pulled: the next that opens it finds another card. */
static int is_gone(struct card *card) {
    if (card->gone_after_s > 0 && card->started_ns != 0 && now_ns() - card->started_ns > card->gone_after_s * 1000000000LL) {
        card->gone = 1;
    }
    return card->gone;
}

static int on_prepare(snd_pcm_ioplug_t *plug) {
    struct card *card = plug->private_data;
    if (is_gone(card)) return -ENODEV;
    card->started_ns = 0;
    card->taken = 0;
    return 0;
}

static int on_start(snd_pcm_ioplug_t *plug) {
    struct card *card = plug->private_data;
    struct itimerspec every_10_ms = {{0, 10000000}, {0, 10000000}};
    card->started_ns = now_ns();
    card->taken = 0;
    return timerfd_settime(card->timer, 0, &every_10_ms, NULL);
}

static int on_stop(snd_pcm_ioplug_t *plug) {
    struct card *card = plug->private_data;
    struct itimerspec never = {{0, 0}, {0, 0}};
    card->started_ns = 0;
    return timerfd_settime(card->timer, 0, &never, NULL);
}

static snd_pcm_sframes_t on_pointer(snd_pcm_ioplug_t *plug) {
    struct card *card = plug->private_data;
    if (is_gone(card)) return -ENODEV;
    uint64_t frames = made(card);
    if (frames - card->taken > plug->buffer_size) return -EPIPE;
    return (snd_pcm_sframes_t)(frames % plug->buffer_size);
}

static int on_events(snd_pcm_ioplug_t *plug, struct pollfd *descriptors, unsigned count, unsigned short *events) {
    struct card *card = plug->private_data;
    uint64_t ticks;
    *events = 0;
    if (count == 0 || !(descriptors[0].revents & POLLIN)) return 0;
    if (read(card->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) return -errno;
    if (is_gone(card) || made(card) - card->taken >= plug->period_size) *events = POLLIN;
    return 0;
}

static snd_pcm_sframes_t on_transfer(snd_pcm_ioplug_t *plug, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                                     snd_pcm_uframes_t frames) {
    struct card *card = plug->private_data;
    unsigned char *out = (unsigned char *)areas->addr + (areas->first + areas->step * offset) / 8;
    for (snd_pcm_uframes_t frame = 0; frame < frames; frame++, out += card->frame_bytes) {
        if (card->length == 0) {
            memset(out, 0, card->frame_bytes);
            continue;
        }
        memcpy(out, card->samples + card->place * card->frame_bytes, card->frame_bytes);
        card->place = (card->place + 1) % card->length;
    }
    card->taken += frames;
    return (snd_pcm_sframes_t)frames;
}

static void release(struct card *card) {
    if (card->samples) munmap((void *)card->samples, card->length * card->frame_bytes);
    if (card->owner >= 0) close(card->owner);
    if (card->timer >= 0) close(card->timer);
    free(card);
}

static int on_close(snd_pcm_ioplug_t *plug) {
    release(plug->private_data);
    return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
    .start = on_start,
    .stop = on_stop,
    .pointer = on_pointer,
    .transfer = on_transfer,
    .prepare = on_prepare,
    .poll_revents = on_events,
    .close = on_close,
};

static int map_samples(struct card *card, const char *path) {
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) < 0) return -errno;
    card->length = (size_t)status.st_size / card->frame_bytes;
    void *mapped = mmap(NULL, card->length * card->frame_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return -errno;
    card->samples = mapped;
    return 0;
}

static int take(struct card *card, const char *path) {
    card->owner = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (card->owner < 0) return -errno;
    return flock(card->owner, LOCK_EX | LOCK_NB) < 0 ? -EBUSY : 0;
}

static int offer(struct card *card) {
    unsigned access[] = {SND_PCM_ACCESS_RW_INTERLEAVED}, format[] = {(unsigned)card->format};
    unsigned channels = (unsigned)card->channels, rate = (unsigned)card->rate;
    snd_pcm_ioplug_t *plug = &card->plug;
    int error = snd_pcm_ioplug_set_param_list(plug, SND_PCM_IOPLUG_HW_ACCESS, 1, access);
    if (error >= 0) error = snd_pcm_ioplug_set_param_list(plug, SND_PCM_IOPLUG_HW_FORMAT, 1, format);
    if (error >= 0) error = snd_pcm_ioplug_set_param_minmax(plug, SND_PCM_IOPLUG_HW_CHANNELS, channels, channels);
    if (error >= 0) error = snd_pcm_ioplug_set_param_minmax(plug, SND_PCM_IOPLUG_HW_RATE, rate, rate);
    if (error >= 0) error = snd_pcm_ioplug_set_param_minmax(plug, SND_PCM_IOPLUG_HW_PERIODS, 2, 64);
    if (error >= 0) error = snd_pcm_ioplug_set_param_minmax(plug, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 256, 1 << 20);
    if (error >= 0) error = snd_pcm_ioplug_set_param_minmax(plug, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 512, 1 << 22);
    return error;
}

SND_PCM_PLUGIN_DEFINE_FUNC(testcard) {
    const char *format = "S16_LE", *samples = NULL, *owner = NULL;
    snd_config_iterator_t at, next;
    struct card *card = calloc(1, sizeof *card);
    if (!card) return -ENOMEM;
    card->owner = card->timer = -1;
    card->rate = 48000;
    card->channels = 1;
    snd_config_for_each(at, next, conf) {
        snd_config_t *entry = snd_config_iterator_entry(at);
        const char *key;
        int error = snd_config_get_id(entry, &key);
        if (error >= 0 && !strcmp(key, "rate")) error = snd_config_get_integer(entry, &card->rate);
        else if (error >= 0 && !strcmp(key, "channels")) error = snd_config_get_integer(entry, &card->channels);
        else if (error >= 0 && !strcmp(key, "true_rate")) error = snd_config_get_integer(entry, &card->true_rate);
        else if (error >= 0 && !strcmp(key, "gone_after_s")) error = snd_config_get_integer(entry, &card->gone_after_s);
        else if (error >= 0 && !strcmp(key, "format")) error = snd_config_get_string(entry, &format);
        else if (error >= 0 && !strcmp(key, "samples")) error = snd_config_get_string(entry, &samples);
        else if (error >= 0 && !strcmp(key, "owner")) error = snd_config_get_string(entry, &owner);
        if (error < 0) {
            release(card);
            return error;
        }
    }
    if (card->true_rate == 0) card->true_rate = card->rate;
    card->format = snd_pcm_format_value(format);
    card->frame_bytes = (size_t)(snd_pcm_format_physical_width(card->format) / 8 * card->channels);
    int error = stream == SND_PCM_STREAM_CAPTURE ? 0 : -EINVAL;
    if (error >= 0 && owner) error = take(card, owner);
    if (error >= 0 && samples) error = map_samples(card, samples);
    if (error >= 0) error = card->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (error < 0) {
        release(card);
        return error;
    }
    card->plug.version = SND_PCM_IOPLUG_VERSION;
    card->plug.name = "test card";
    card->plug.callback = &callbacks;
    card->plug.private_data = card;
    card->plug.poll_fd = card->timer;
    card->plug.poll_events = POLLIN;
    error = snd_pcm_ioplug_create(&card->plug, name, stream, mode);
    if (error < 0) {
        release(card);
        return error;
    }
    error = offer(card);
    if (error < 0) {
        snd_pcm_ioplug_delete(&card->plug);
        return error;
    }
    *pcmp = card->plug.pcm;
    return 0;
}

SND_PCM_PLUGIN_SYMBOL(testcard);
