package contrib

import (
	"slices"
	"strings"

	"github.com/dapr/components-contrib/bindings/cron"
	"github.com/dapr/components-contrib/bindings/localstorage"
	"github.com/dapr/components-contrib/bindings/mysql"
	"github.com/dapr/components-contrib/bindings/postgres"
	"github.com/dapr/components-contrib/bindings/redis"
	"github.com/dapr/components-contrib/bindings/smtp"

	"github.com/sidecast/sidecast/components"
)

var (
	cronBinding = (&system{
		input: cron.NewCron, fields: func() []components.Field {
			return []components.Field{
				field("schedule", "string", "When: `@every 10s`, `@daily`, or six or five fields of cron, the first of six the seconds: `0 30 * * * *`.", needed),
			}
		},
	}).component("cron", "Events at set times. Each instance of an app has its own; what fails is not repeated.")

	localStorageBinding = (&system{
		output: localstorage.NewLocalStorage, fields: func() []components.Field {
			return []components.Field{
				field("rootPath", "string", "Folder that the files are in.", needed),
			}
		},
	}).component("localstorage", "Files in a folder of this machine: create, get, list and delete, by the metadata fileName.")

	redisBinding = (&system{
		output: redis.NewRedis, fields: func() []components.Field {
			return slices.Concat(redisFields(), redisLegacy(), azureFields())
		},
		settle: func(values map[string]string, s components.Settings) {
			if s.Given("maxRetries") && !s.Given("redisMaxRetries") {
				delete(values, "redisMaxRetries") // the default would hide the older name
			}
		},
	}).component("redis", "Keys of Redis or a server that speaks its protocol: create, get, delete and increment, by the metadata key.")

	// The library closes its connection for good when it is asked for the operation close, under the calls there are.
	postgresBinding = (&system{
		output: postgres.NewPostgres, fields: postgresBindingFields, done: []string{"close"},
	}).component("postgresql", "Statements of SQL in PostgreSQL: exec and query, by the metadata sql and params. Its operation close has nothing to do.")

	mysqlBinding = (&system{
		output: mysql.NewMysql, done: []string{"close"}, fields: func() []components.Field {
			return []components.Field{
				field("url", "string", "Data source name: user:password@tcp(host:3306)/database?tls=true.", needed, hidden),
				field("pemPath", "string", "File with the certificates of the authorities that may have signed the server's, for tls=custom in the URL."),
				field("maxIdleConns", "int", "Connections kept open without work; 0 is two.", standard("0")),
				field("maxOpenConns", "int", "Most connections; 0 is no limit.", standard("0")),
				field("connMaxLifetime", "duration", "Age at which a connection is closed; 0 is never.", standard("0")),
				field("connMaxIdleTime", "duration", "How long a connection may idle; 0 is for ever.", standard("0")),
			}
		},
	}).component("mysql", "Statements of SQL in MySQL or MariaDB: exec and query, by the metadata sql and params. Its operation close has nothing to do.")

	// The library keeps what a request says in its settings, for all requests to come.
	smtpBinding = (&system{
		output: smtp.NewSMTP, fresh: true, fields: func() []components.Field {
			return []components.Field{
				field("host", "string", "Host of the mail server.", needed),
				field("port", "int", "Port of the mail server; on 465 TLS comes first.", needed, within("1", "65535")),
				field("user", "string", "User of the mail server."),
				field("password", "string", "Password of the user.", hidden),
				field("skipTLSVerify", "bool", "Do not check the server's certificate: for tests alone.", standard("false")),
				field("emailFrom", "string", "Sender, where the metadata of a request names none."),
				field("emailTo", "string", "Receivers, separated by semicolons, where the metadata of a request names none."),
				field("emailCC", "string", "Receivers of a copy."),
				field("emailBCC", "string", "Receivers of a copy whom the others do not see."),
				field("subject", "string", "Subject, where the metadata of a request names none."),
				field("priority", "int", "Priority, from 1 for the highest to 5.", standard("3"), within("1", "5")),
			}
		},
	}).component("smtp", "Mail, in HTML, by way of a mail server: create sends one.")
)

func postgresBindingFields() []components.Field {
	return slices.Concat(slices.DeleteFunc(postgresFields(), func(f components.Field) bool {
		return f.Key == "metadataTableName" || f.Key == "cleanupInterval" || f.Key == "useAWSIAM" || // the library does not sign in so
			strings.HasPrefix(f.Key, "aws") || strings.HasPrefix(f.Key, "assumeRole")
	}), azureFields())
}
