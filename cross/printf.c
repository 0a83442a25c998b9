/* The printf of the router binaries. In all of them only musl's resolver formats text in C: numbers, by %d and %x. musl's
   own printf brings floating point, wide characters and stdio with it, 17 kB on mipsel. Anything else in a format is a
   mistake, and ends the program. The linker takes these instead of musl's, since they come first. */
#include <stdarg.h>
#include <stddef.h>

/* Writes at most size bytes, the last of them NUL; returns the length of the whole text. */
int vsnprintf(char *restrict out, size_t size, const char *restrict format, va_list args)
{
	size_t length = 0;
	for (; *format; format++) {
		char digits[12];
		char *text = digits + sizeof digits;
		if (*format != '%') {
			*--text = *format;
		} else {
			unsigned base = *++format == 'd' ? 10 : 16;
			if (*format != 'd' && *format != 'x')
				__builtin_trap();
			int number = va_arg(args, int);
			int negative = base == 10 && number < 0;
			unsigned rest = negative ? -(unsigned)number : (unsigned)number;
			do
				*--text = "0123456789abcdef"[rest % base];
			while (rest /= base);
			if (negative)
				*--text = '-';
		}
		for (; text < digits + sizeof digits; length++, text++)
			if (length + 1 < size)
				out[length] = *text;
	}
	if (size)
		out[length < size ? length : size - 1] = 0;
	return (int)length;
}

int snprintf(char *restrict out, size_t size, const char *restrict format, ...)
{
	va_list args;
	va_start(args, format);
	int length = vsnprintf(out, size, format, args);
	va_end(args);
	return length;
}

int sprintf(char *restrict out, const char *restrict format, ...)
{
	va_list args;
	va_start(args, format);
	int length = vsnprintf(out, (size_t)-1 / 2, format, args);
	va_end(args);
	return length;
}
