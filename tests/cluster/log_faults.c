/* A library that does what a log hook must survive: messages from another hook, from critical sections, from the
 * postmaster when its shared memory is gone, with any bytes. Built by log_faults.rs for its server alone. */
#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;
void _PG_init(void);

static emit_log_hook_type previous;
static bool within = false;
static char *last_words = "";

/* Raises messages while a message is being logged: a WARNING, or an ERROR that leaves the hook. */
static void
raise_within(ErrorData *edata)
{
	if (!within && edata->message && strstr(edata->message, "raise "))
	{
		bool		fails = strstr(edata->message, "raise error") != NULL;

		within = true;
		if (fails)
		{
			within = false;
			if (edata->elevel < ERROR)
				elog(ERROR, "within the hook %s", last_words);
		}
		else
			elog(WARNING, "within the hook %s", last_words);
		within = false;
	}
	if (previous)
		previous(edata);
}

/* After the postmaster has let go of shared memory. */
static void
say_last_words(int code, Datum arg)
{
	elog(LOG, "last words %s", last_words);
}

PG_FUNCTION_INFO_V1(critical);
Datum
critical(PG_FUNCTION_ARGS)
{
	char	   *said = text_to_cstring(PG_GETARG_TEXT_PP(0));

	START_CRIT_SECTION();
	ereport(LOG, (errmsg("critical %s", said)));
	END_CRIT_SECTION();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(raise_at);
Datum
raise_at(PG_FUNCTION_ARGS)
{
	int			level = PG_GETARG_INT32(0) == 2 ? PANIC : PG_GETARG_INT32(0) == 1 ? FATAL : LOG;
	char	   *said = text_to_cstring(PG_GETARG_TEXT_PP(1));

	ereport(level, (errmsg("end %s", said), errdetail("end %s", said), errhint("end %s", said)));
	PG_RETURN_VOID();
}

/* Every byte but NUL, then the text, then every byte again, in every field. */
PG_FUNCTION_INFO_V1(odd_bytes);
Datum
odd_bytes(PG_FUNCTION_ARGS)
{
	char	   *said = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		bytes[256];

	for (int i = 0; i < 255; i++)
		bytes[i] = (char) (i + 1);
	bytes[255] = 0;
	ereport(LOG_SERVER_ONLY, (errmsg_internal("%s %s %s", bytes, said, bytes), errdetail_internal("%s %s %s", bytes, said, bytes),
		errhint("%s %s %s", bytes, said, bytes), errcontext("%s %s %s", bytes, said, bytes)));
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	DefineCustomStringVariable("log_faults.last_words", "", NULL, &last_words, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	previous = emit_log_hook;
	emit_log_hook = raise_within;
	if (*last_words)
		on_proc_exit(say_last_words, (Datum) 0);
}
